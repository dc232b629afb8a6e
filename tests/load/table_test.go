package load

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// table compares requirements with measurements.
type table struct {
	mu   sync.Mutex
	rows []figure
}

// figure is a line of the table.
type figure struct {
	what, asked, measured string
	ratio                 string // of the compared values, or empty
	how                   string
	missed                bool // the requirement
	broken                bool // so far off that noise cannot explain it
}

// add adds a line. It fails the test if a requirement that must be met is missed.
func (ta *table) add(t *testing.T, f figure) {
	t.Helper()
	ta.mu.Lock()
	defer ta.mu.Unlock()
	ta.rows = append(ta.rows, f)
	t.Logf("%s: %s %s (asked: %s)", f.what, f.measured, f.ratio, f.asked)
	if f.broken || f.missed && *strict {
		t.Errorf("%s: %s %s, asked: %s", f.what, f.measured, f.ratio, f.asked)
	}
}

func (ta *table) print(w io.Writer) {
	ta.mu.Lock()
	defer ta.mu.Unlock()
	if len(ta.rows) == 0 {
		return
	}
	disk := "commits not waiting for the disk"
	if *durable {
		disk = "commits on the disk"
	}
	fmt.Fprintf(w, "\n%d processors, SoftHSM, PostgreSQL with %s; go test ./load -run TestLoad%s\n", runtime.NumCPU(), disk, given())
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "MEASURE\tASKED\tMEASURED\tRATIO\tBY")
	for _, f := range ta.rows {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", f.what, f.asked, f.measured, f.ratio, f.how)
	}
	out.Flush()
}

// given returns the flags of the run.
func given() (text string) {
	flag.Visit(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "load.") {
			text += fmt.Sprintf(" -%s=%s", f.Name, f.Value)
		}
	})
	return text
}

// noise is the factor by which a busy machine or a small run may miss a requirement.
const noise = 50

// thousands writes a number with a comma between thousands.
func thousands[N int | int64 | uint64](n N) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
