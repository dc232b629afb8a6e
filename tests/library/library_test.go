package library_test

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/library"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

func TestProgramOfThePageIssuesAndJoins(t *testing.T) {
	p := library.Build(t)
	message, err := keypackage.ParseMessage(p.Issue())
	if err != nil {
		t.Fatalf("ParseMessage() err = %v, want nil", err)
	}
	kp := message.KeyPackage
	policy := keypackage.Policy{Now: uint64(time.Now().Unix()), Level: keypackage.LevelStrict}
	if report := keypackage.Validate(kp, policy); !report.OK() || len(report.Findings) > 0 {
		t.Errorf("Validate() found %v, want nothing", report.Findings)
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	group := welcometest.NewGroup(t, suite)
	if got := p.Join(group.Welcome(kp).Message()); len(got) != 2*suite.Nh {
		t.Errorf("the program printed %q, want an epoch authenticator of %d bytes", got, suite.Nh)
	}
}

// functions returns the functions of a file with their comments, as they are written.
func functions(t *testing.T, source string) map[string]string {
	t.Helper()
	files := gotoken.NewFileSet()
	f, err := parser.ParseFile(files, "", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Doc != nil {
			all[fn.Name.Name] = source[files.Position(fn.Doc.Pos()).Offset:files.Position(fn.End()).Offset]
		}
	}
	return all
}

func TestPageHasTheFunctionsOfTheExample(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(program.Root(), "signer", "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	page, tested := functions(t, library.Source(t)), functions(t, string(example))
	for _, name := range []string{"issue", "withKeys"} {
		if page[name] == "" || page[name] != tested[name] {
			t.Errorf("docs/LIBRARY.md has\n%s\nand signer/example_test.go has\n%s", page[name], tested[name])
		}
	}
	if lines := strings.Count(page["issue"], "\n") + 1; lines > 52 {
		t.Errorf("issue has %d lines, want about 40", lines)
	}
}
