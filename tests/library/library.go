// Package library builds the program of docs/LIBRARY.md as its reader would: in a folder
// outside the tree, as a module of its own.
package library

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// Source returns the program: the blocks of Go in its section of the page.
func Source(t testing.TB) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(program.Root(), "docs", "LIBRARY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## A program\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var source strings.Builder
	for i, part := range strings.Split(section, "```go\n") {
		block, _, _ := strings.Cut(part, "```\n")
		if i > 0 {
			source.WriteString(block + "\n")
		}
	}
	return source.String()
}

// Program is the built program of the page.
type Program struct {
	t   testing.TB
	bin string
	// Dir is the folder of its token and its files.
	Dir string
}

// Build builds the program.
func Build(t testing.TB) *Program {
	t.Helper()
	program.RequireSoftHSM(t)
	dir := t.TempDir()
	// The checksums are those of the tree: its modules are in the module cache.
	sums, err := os.ReadFile(filepath.Join(program.Root(), "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	const mod = "module example.com/issuer\n\ngo 1.26\n\nrequire github.com/hsm-kp/hsm-kp v0.0.0\n\nreplace github.com/hsm-kp/hsm-kp => %s\n"
	for name, content := range map[string]string{
		"main.go": Source(t), "go.mod": fmt.Sprintf(mod, filepath.ToSlash(filepath.Clean(program.Root()))), "go.sum": string(sums),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-mod=mod", "-o", "issuer", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program of docs/LIBRARY.md: %v\n%s", err, out)
	}
	return &Program{t, filepath.Join(dir, "issuer"), filepath.Join(dir, "alice")}
}

// Issue makes a key package and returns the MLSMessage.
func (p *Program) Issue() []byte {
	p.t.Helper()
	p.run(p.Dir)
	message, err := os.ReadFile(filepath.Join(p.Dir, "kp"))
	if err != nil {
		p.t.Fatal(err)
	}
	return message
}

// Join opens a Welcome in an MLSMessage and returns what the program prints.
func (p *Program) Join(message []byte) string {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "welcome")
	if err := os.WriteFile(path, message, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.run(p.Dir, path)
}

func (p *Program) run(args ...string) string {
	p.t.Helper()
	out, err := exec.Command(p.bin, args...).Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		p.t.Fatalf("issuer %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}
