package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// answer returns what the program prints for a command line, word by word.
func answer(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// The library looks for the flag that is being completed in os.Args.
	defer func(was []string) { os.Args = was }(os.Args)
	os.Args = append([]string{"hsm-kp"}, args...)
	if err := execute(t.Context(), os.Args, newUI(strings.NewReader(""), out, out)); err != nil {
		t.Errorf("execute(%q) err = %v, want nil", args, err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestShellsAreToldWhatMayComeNext(t *testing.T) {
	const ask = "--generate-bash-completion"
	for line, want := range map[string][]string{
		"":                               {"init", "generate", "verify", "identity"},
		"identity":                       {"create", "list", "show"},
		"config":                         {"sample", "check"},
		"generate --ide":                 {"--identity"},
		"generate -":                     {"--identity", "-i", "--count", "--last-resort"},
		"--config c generate --ide":      {"--identity"},
		"show REF -":                     {"--json"},
		"identity create alice --allow":  {"--allow-weak-key"},
		"audit show --a":                 {"--act"},
		"audit show --act":               {"refused", "unwrapped"},
		"audit show --act refused --act": {"handed-over"},
	} {
		got := answer(t, append(strings.Fields(line), ask)...)
		for _, word := range want {
			if !slices.Contains(got, word) {
				t.Errorf("after %q: %q, want %q among them", line, got, word)
			}
		}
	}
}

// To ask what comes next executes nothing, whatever was typed so far: these
// would make a token, print the sample or read standard input.
func TestCompletionExecutesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kp")
	for _, line := range []string{
		"init --softhsm " + dir, "init --softhsm " + dir + " --", "config sample", "config sample --", "inspect -- -", "verify -- -",
		"man", "man --", "unwrap -- abcd", "--", "generate --identity", "demo --count",
	} {
		if got := answer(t, append(strings.Fields(line), "--generate-bash-completion")...); len(got) != 0 {
			t.Errorf("after %q: %q, want nothing", line, got)
		}
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("Lstat(%s) err = %v, want none there", dir, err)
	}
}
