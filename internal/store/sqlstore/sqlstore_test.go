package sqlstore

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var argument = regexp.MustCompile(`\$(\d+)`)

// SQLite gives $1, $2 and so on their numbers in the order in which a text has them first, and
// PostgreSQL by their digits. A text in which these differ would bind values to the wrong columns.
func TestArgumentsAppearInTheirOrder(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			text := literals(e)
			if !ok || text == "" {
				return true
			}
			texts++
			next := 1
			for _, match := range argument.FindAllStringSubmatch(text, -1) {
				number, _ := strconv.Atoi(match[1])
				if number > next {
					t.Errorf("%s: $%d comes before $%d in %q", set.Position(n.Pos()), number, next, text)
				}
				next = max(next, number+1)
			}
			return false
		})
	}
	if texts < 50 {
		t.Errorf("%d texts, want those of the package", texts)
	}
}

// literals returns the string literals of a sum, without what is between them.
func literals(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ := strconv.Unquote(e.Value)
			return text
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return literals(e.X) + literals(e.Y)
		}
	}
	return ""
}
