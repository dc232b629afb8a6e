package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// newTestUI returns a ui that prints nowhere.
func newTestUI(t *testing.T) *ui {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return newUI(strings.NewReader(""), null, null)
}

func TestOptionsMayStandAnywhere(t *testing.T) {
	for line, want := range map[string]string{
		"":                                 "",
		"list":                             "list",
		"--help":                           "--help",
		"list --help":                      "list --help",
		"show REF --json":                  "show --json -- REF",
		"show --json REF":                  "show --json -- REF",
		"show REF --config c.yaml":         "--config c.yaml show -- REF",
		"show --config=c.yaml REF":         "--config=c.yaml show -- REF",
		"-c c.yaml show REF":               "-c c.yaml show -- REF",
		"export A B --out d C":             "export --out d -- A B C",
		"export A --out=d":                 "export --out=d -- A",
		"identity create NAME --suite 2":   "identity create --suite 2 -- NAME",
		"identity create --suite 2 NAME":   "identity create --suite 2 -- NAME",
		"identity --config c create N":     "--config c identity create -- N",
		"identity create list":             "identity create -- list",
		"identity show show --json":        "identity show --json -- show",
		"inspect -":                        "inspect -- -",
		"inspect -- --json":                "inspect -- --json",
		"generate -i a -n 3":               "generate -i a -n 3",
		"generate --identity -x --count 1": "generate --identity -x --count 1",
		"list --unknown extra":             "list --unknown -- extra",
		"frobnicate --json":                "--json -- frobnicate",
		"bench -s 1 -s 2 --json":           "bench -s 1 -s 2 --json",
		"list --limit -1 extra":            "list --limit -1 -- extra",
		"generate --count=-1":              "generate --count=-1",
		"show REF --json=false":            "show --json=false -- REF",
		"show REF --config=a=b":            "--config=a=b show -- REF",
		"generate --identity=--json":       "generate --identity=--json",
		"generate -i -- --json":            "generate -i -- --json",
		"show -- REF -- --json":            "show -- REF -- --json",
		"list generate":                    "list -- generate",
		"frobnicate list":                  "-- frobnicate list",
		"show REF --store x --config c":    "--store x --config c show -- REF",
		"list --identity=":                 "list --identity=",
		"show REF -json":                   "show -json -- REF",
		"show REF ---json":                 "show ---json -- REF",
		"help generate":                    "-- help generate",
	} {
		got, err := intersperse(newApp(newTestUI(t)), append([]string{"hsm-kp"}, strings.Fields(line)...))
		if err != nil || strings.Join(got[1:], " ") != want {
			t.Errorf("intersperse(%q) = %q, %v, want %q", line, got[1:], err, want)
		}
	}
}

func TestAnOptionWithoutItsValue(t *testing.T) {
	for _, line := range []string{"--config", "list --identity", "generate --identity a --count", "show REF --store"} {
		_, err := intersperse(newApp(newTestUI(t)), append([]string{"hsm-kp"}, strings.Fields(line)...))
		if exitStatus(err) != exitUsage {
			t.Errorf("intersperse(%q) err = %v, want a usage error", line, err)
		}
	}
}

func TestCompletionIsLeftAlone(t *testing.T) {
	args := []string{"hsm-kp", "show", "REF", "--json", "--generate-bash-completion"}
	if got, err := intersperse(newApp(newTestUI(t)), args); err != nil || !slices.Equal(got, args) {
		t.Errorf("intersperse() = %q, %v, want %q", got, err, args)
	}
}

// No command line panics, whatever it is, and none is changed in what it says:
// all words are there again.
func FuzzIntersperse(f *testing.F) {
	f.Add("show REF --json --config c")
	f.Add("identity create -- --suite")
	f.Fuzz(func(t *testing.T, line string) {
		args := append([]string{"hsm-kp"}, strings.Split(line, " ")...)
		got, err := intersperse(newApp(newTestUI(t)), slices.Clone(args))
		if err != nil {
			return
		}
		sorted := func(list []string) []string {
			return slices.Sorted(slices.Values(slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "--" })))
		}
		if !slices.Equal(sorted(got), sorted(args)) && !slices.Contains(args, "--") {
			t.Errorf("intersperse(%q) = %q", args, got)
		}
	})
}
