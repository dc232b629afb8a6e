package docs

import (
	"flag"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the commands print into the pages")

// step is a command of a page, and the output that the page shows.
type step struct{ command, output string }

// stepsOf reads commands. Each begins with "$ ", and continues after a line that ends with | or \, and
// after <<'END' until END.
func stepsOf(body string) (steps []step) {
	open, until := false, ""
	for line := range strings.Lines(body) {
		command, begins := strings.CutPrefix(line, "$ ")
		switch {
		case until != "":
			steps[len(steps)-1].command += line
			if strings.TrimSpace(line) == until {
				until = ""
			}
			continue
		case begins:
			steps = append(steps, step{command: command})
		case open:
			steps[len(steps)-1].command += line
		default:
			steps[len(steps)-1].output += line
			continue
		}
		text := strings.TrimRight(line, "\n")
		open = strings.HasSuffix(text, "|") || strings.HasSuffix(text, `\`)
		if m := hereDocument.FindStringSubmatch(text); m != nil {
			until = m[1]
		}
	}
	return steps
}

var hereDocument = regexp.MustCompile(`<<'([A-Z]+)'`)

func TestStepsOf(t *testing.T) {
	got := stepsOf("$ cat >f <<'END'\na\nEND\n$ a |\n  b\nprinted\n$ c\n")
	want := []step{{"cat >f <<'END'\na\nEND\n", ""}, {"a |\n  b\n", "printed\n"}, {"c\n", ""}}
	if len(got) != len(want) {
		t.Fatalf("stepsOf() = %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("stepsOf()[%d] = %q, want %q", i, got[i], want[i])
		}
	}
}

// clip shortens lines of data to what a page shows.
func clip(s string) string {
	const width = 260
	var b strings.Builder
	for line := range strings.Lines(s) {
		if len(line) > width && !strings.HasPrefix(line, "hsm-kp:") {
			line = line[:width] + "…\n"
		} else if !strings.HasSuffix(line, "\n") {
			line += "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

var (
	// digits are copied from the output of one command into the next command.
	digits    = regexp.MustCompile(`\b[0-9a-f]{8,}\b`)
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?`)
	encoded   = regexp.MustCompile(`[0-9A-Za-z+/]{16,}=*(…|")?`)
	duration  = regexp.MustCompile(`\b(\d+m)?\d+(\.\d+)?(µs|ms|s)\b`)
	numbered  = regexp.MustCompile(`(?m)^\d+ +TIME`) // entries of the trail, whose numbers depend on batches
	rate      = regexp.MustCompile(`\b\d+ a second`)
	spaces    = regexp.MustCompile(`([,:{}\[\]"])\s+`) // protojson writes them in some builds
	columns   = regexp.MustCompile(`  +`)
)

// random removes what differs from run to run.
func random(s string) string {
	s = timestamp.ReplaceAllString(s, "TIME")
	s = numbered.ReplaceAllString(s, "N TIME")
	s = spaces.ReplaceAllString(s, "$1")
	s = encoded.ReplaceAllString(s, "BYTES$1")
	s = digits.ReplaceAllString(s, "DIGITS")
	s = duration.ReplaceAllString(s, "DURATION")
	s = rate.ReplaceAllString(s, "N a second")
	return columns.ReplaceAllString(s, "  ")
}
