package lifecycle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// table returns the rows of the table in docs/ARCHITECTURE.md that begins with a header, each cell
// without its backquotes.
func table(t *testing.T, header string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program.Root(), "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), header+"\n")
	if !found {
		t.Fatalf("docs/ARCHITECTURE.md has no table %s", header)
	}
	for line := range strings.Lines(after) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch {
		case !strings.HasPrefix(line, "|"):
			return rows
		case strings.HasPrefix(line, "|-"):
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		rows = append(rows, cells)
	}
	return rows
}

func TestTheDocumentHasTheTransitions(t *testing.T) {
	var documented []store.Transition
	for _, row := range table(t, "| step | from | to |") {
		for _, from := range strings.Split(row[1], ", ") {
			for _, to := range strings.Split(row[2], ", ") {
				if to == "the same" {
					to = from
				}
				documented = append(documented, store.Transition{From: store.State(from), Step: store.Step(row[0]), To: store.State(to)})
			}
		}
	}
	for _, tr := range store.Transitions {
		if !slices.Contains(documented, tr) {
			t.Errorf("the document lacks %+v", tr)
		}
	}
	for _, tr := range documented {
		if !slices.Contains(store.Transitions, tr) {
			t.Errorf("the code lacks %+v", tr)
		}
	}
	if len(documented) != len(store.Transitions) {
		t.Errorf("the document has %d transitions, the code %d", len(documented), len(store.Transitions))
	}
}

func TestTheDocumentHasTheStates(t *testing.T) {
	var documented []store.State
	for _, row := range table(t, "| state | means | private keys | Welcomes open |") {
		documented = append(documented, store.State(row[0]))
	}
	if !slices.Equal(documented, store.States) {
		t.Errorf("the document has the states %v, the code %v", documented, store.States)
	}
}
