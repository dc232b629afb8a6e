// Package arch compares the product's imports and dependencies with the tables in
// docs/ARCHITECTURE.md, and its manifests with the update rules.
package arch

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

const module = "github.com/hsm-kp/hsm-kp/"

// page is the page that has the tables.
const page = "docs/ARCHITECTURE.md"

// table reads the table with a header: the cells of each row, by the name in its first
// cell.
func table(t *testing.T, header string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program.Root(), filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n"+header+"\n")
	if !ok {
		t.Fatalf("%s has no table %s", page, header)
	}
	rows, _, _ := strings.Cut(rest, "\n\n")
	all := make(map[string][]string)
	for row := range strings.Lines(rows) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
		name, code := strings.CutPrefix(strings.TrimSpace(cells[0]), "`")
		if !code { // the line under the header
			continue
		}
		name = strings.TrimSuffix(name, "`")
		if len(cells) != strings.Count(header, "|")-1 || name == "" {
			t.Fatalf("%s: the row of %s has %d cells, want those of %s", page, name, len(cells), header)
		}
		if _, twice := all[name]; twice {
			t.Errorf("%s has %s twice", page, name)
		}
		all[name] = cells
	}
	return all
}

// arrows returns the packages of the product that each package may import.
func arrows(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for name, cells := range table(t, "| package | owns | imports |") {
		all[name] = imported(cells[2])
	}
	if len(all) < 20 {
		t.Fatalf("%s has %d packages, want those of the product", page, len(all))
	}
	return all
}

// imported reads the last cell of a row.
func imported(cell string) []string {
	var list []string
	for name := range strings.SplitSeq(cell, ",") {
		if name = strings.TrimSpace(name); name != "–" {
			list = append(list, name)
		}
	}
	return list
}

// owners are the modules that only one package, with those below it, may import.
var owners = map[string]string{
	"github.com/miekg/pkcs11":                                 "token",
	"github.com/ThalesGroup/crypto11":                         "token",
	"github.com/mattn/go-sqlite3":                             "internal/store/sqlite",
	"github.com/jackc/pgx/v5":                                 "internal/store/postgres",
	"go.yaml.in/yaml/v4":                                      "config",
	"github.com/urfave/cli/v2":                                "cmd/hsm-kp",
	"golang.org/x/mod/sumdb/note":                             "internal/audit",
	"github.com/prometheus/client_golang/prometheus":          "internal/observe",
	"github.com/prometheus/client_golang/prometheus/promhttp": "internal/observe",
	"golang.org/x/mod/sumdb/tlog":                             "internal/audit",
}

// imports returns the direct imports of each package of the product.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}} {{range .Imports}}{{.}} {{end}}", "./...")
	cmd.Dir = program.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		all[strings.TrimPrefix(fields[0], module)] = fields[1:]
	}
	return all
}

func TestImportsFollowTheTable(t *testing.T) {
	rooms, allowed := imports(t), arrows(t)
	for room, list := range rooms {
		may, known := allowed[room]
		if !known {
			t.Errorf("%s is not in the table", room)
			continue
		}
		for _, path := range list {
			other, ours := strings.CutPrefix(path, module)
			if ours && !slices.Contains(may, other) && !slices.Contains(may, "all") {
				t.Errorf("%s imports %s, which the table does not allow", room, other)
			}
		}
		for _, other := range may {
			if other != "all" && !slices.Contains(list, module+other) {
				t.Errorf("%s does not import %s, as the table says", room, other)
			}
		}
	}
	for room := range allowed {
		if _, there := rooms[room]; !there {
			t.Errorf("the table has %s, which is no package", room)
		}
	}
}

func TestOneRoomOwnsEachOutsideSystem(t *testing.T) {
	seen := make(map[string]bool)
	for room, list := range imports(t) {
		for _, path := range list {
			owner, owned := owners[path]
			if !owned {
				continue
			}
			seen[path] = true
			if room != owner && !strings.HasPrefix(room, owner+"/") {
				t.Errorf("%s imports %s, which is %s's alone", room, path, owner)
			}
		}
	}
	for path := range owners {
		if !seen[path] {
			t.Errorf("nothing imports %s", path)
		}
	}
}

// Programs that call the service need no C compiler, no PKCS#11 module and no database.
func TestTheClientIsGoAlone(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{len .CgoFiles}}{{end}}", "./client")
	cmd.Dir = program.Root()
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1") // otherwise go list omits files of cgo
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := 0
	for line := range strings.Lines(string(out)) {
		path, files, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		deps++
		if _, owned := owners[path]; owned || files != "0" {
			t.Errorf("client depends on %s, with %s files of cgo", path, files)
		}
	}
	if deps < 5 {
		t.Errorf("client depends on %d packages, want some", deps)
	}
}
