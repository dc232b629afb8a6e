package main

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Every command says what it does and shows how, and those that print data do
// it as JSON too.
func TestEveryCommandIsDescribed(t *testing.T) {
	withoutJSON := map[string]bool{"serve": true, "demo": true, "completion": true, "man": true, "sample": true, "check": true}
	var visit func(path string, commands []*cli.Command)
	visit = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			name := strings.TrimSpace(path + " " + c.Name)
			if c.Usage == "" {
				t.Errorf("%s has no usage", name)
			}
			if len(c.Subcommands) > 0 {
				visit(name, c.Subcommands)
				continue
			}
			if !strings.Contains(c.Description, "Examples:\n   hsm-kp ") && !strings.Contains(c.Description, "Examples:\n   source ") {
				t.Errorf("%s has no examples", name)
			}
			hasJSON := false
			for _, f := range c.Flags {
				hasJSON = hasJSON || f == cli.Flag(jsonFlag)
			}
			if hasJSON == withoutJSON[c.Name] {
				t.Errorf("%s: --json is there: %t", name, hasJSON)
			}
		}
	}
	visit("", newApp(newTestUI(t)).Commands)
}

func TestTimesAreShownWhereACalendarHasThem(t *testing.T) {
	for seconds, want := range map[uint64]string{
		0:            "0 (1970-01-01T00:00:00Z)",
		1800000000:   "1800000000 (2027-01-15T08:00:00Z)",
		253402300799: "253402300799 (9999-12-31T23:59:59Z)",
		253402300800: "253402300800",
		1<<64 - 1:    "18446744073709551615",
	} {
		if got := timeText(seconds); got != want {
			t.Errorf("timeText(%d) = %q, want %q", seconds, got, want)
		}
	}
}

func TestIdentitiesAreShownAsTextOnlyWhereTheyPrint(t *testing.T) {
	for identity, want := range map[string]string{
		"alice":       `"alice"`,
		"Zoë Müller":  `"Zoë Müller"`,
		"":            `""`,
		"\x1b[31mred": "1b5b33316d726564",
		"a\nb":        "610a62",
		`say "hi"`:    "73617920226869" + "22",
		"\xff\xfe":    "fffe",
		"rtl\u202e":   "72746ce280ae",
	} {
		if got := identityText([]byte(identity)); got != want {
			t.Errorf("identityText(%q) = %s, want %s", identity, got, want)
		}
	}
}
