package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// isInternal reports whether only this module may import the package.
func isInternal(path string) bool {
	return slices.Contains(strings.Split(path, "/"), "internal")
}

// exposure finds the internal types that the declarations of one package show: those
// that its documentation names, and those that a caller reaches without a name.
type exposure struct {
	pkg    *types.Package
	where  string // the current declaration
	seen   map[types.Type]bool
	faults map[string]bool
}

// exposed returns the faults of a package, such as "Read: internal/wire.Reader".
func exposed(pkg *types.Package) []string {
	e := &exposure{pkg: pkg, seen: make(map[types.Type]bool), faults: make(map[string]bool)}
	for _, name := range pkg.Scope().Names() {
		if object := pkg.Scope().Lookup(name); object.Exported() {
			e.where = name
			e.object(object)
		}
	}
	return slices.Sorted(maps.Keys(e.faults))
}

func (e *exposure) object(object types.Object) {
	name, isType := object.(*types.TypeName)
	switch {
	case !isType:
		e.visit(object.Type())
	case name.IsAlias():
		e.visit(types.Unalias(object.Type()))
	default:
		e.declared(object.Type().(*types.Named))
	}
}

// declared visits a type of the package: its underlying type, and its method set with
// promoted methods.
func (e *exposure) declared(t *types.Named) {
	if e.seen[t] {
		return
	}
	e.seen[t] = true
	for p := range t.TypeParams().TypeParams() {
		e.visit(p.Constraint())
	}
	e.visit(t.Underlying())
	if types.IsInterface(t) {
		return // its methods are part of the underlying type
	}
	for m := range types.NewMethodSet(types.NewPointer(t)).Methods() {
		if m.Obj().Exported() {
			e.visit(m.Type())
		}
	}
}

// visit visits a type at any place of a declaration.
func (e *exposure) visit(t types.Type) {
	switch t := t.(type) {
	case *types.Alias:
		e.visit(types.Unalias(t))
	case *types.Named:
		e.named(t)
	case *types.Pointer:
		e.visit(t.Elem())
	case *types.Slice:
		e.visit(t.Elem())
	case *types.Array:
		e.visit(t.Elem())
	case *types.Chan:
		e.visit(t.Elem())
	case *types.Map:
		e.visit(t.Key())
		e.visit(t.Elem())
	case *types.Signature:
		for p := range t.TypeParams().TypeParams() {
			e.visit(p.Constraint())
		}
		e.variables(t.Params())
		e.variables(t.Results())
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() || f.Embedded() {
				e.visit(f.Type())
			}
		}
	case *types.Interface:
		for m := range t.ExplicitMethods() {
			e.visit(m.Type())
		}
		for embedded := range t.EmbeddedTypes() {
			e.visit(embedded)
		}
	case *types.Union:
		for term := range t.Terms() {
			e.visit(term.Type())
		}
	}
}

func (e *exposure) variables(list *types.Tuple) {
	for v := range list.Variables() {
		e.visit(v.Type())
	}
}

func (e *exposure) named(t *types.Named) {
	for argument := range t.TypeArgs().Types() {
		e.visit(argument)
	}
	name := t.Obj()
	switch {
	case name.Pkg() == nil: // predeclared, such as error
	case isInternal(name.Pkg().Path()) && strings.HasPrefix(name.Pkg().Path(), module):
		e.faults[fmt.Sprintf("%s: %s.%s", e.where, strings.TrimPrefix(name.Pkg().Path(), module), name.Name())] = true
	case name.Pkg() == e.pkg && !name.Exported():
		e.declared(t) // its methods and fields can be used by those who have a value
	}
}

func TestPublicPackagesShowNoInternalType(t *testing.T) {
	config := &packages.Config{Mode: packages.NeedName | packages.NeedTypes | packages.NeedImports, Dir: program.Root()}
	list, err := packages.Load(config, "./...")
	if err != nil {
		t.Fatalf("load packages: %v", err)
	}
	public := 0
	for _, p := range list {
		for _, err := range p.Errors {
			t.Errorf("load %s: %v", p.PkgPath, err)
		}
		if p.Name == "main" || isInternal(p.PkgPath) {
			continue
		}
		public++
		for _, fault := range exposed(p.Types) {
			t.Errorf("%s shows an internal type: %s", strings.TrimPrefix(p.PkgPath, module), fault)
		}
	}
	if public < 11 {
		t.Errorf("%d public packages, want those of docs/ARCHITECTURE.md", public)
	}
}

// importers is a fixed set of packages.
type importers map[string]*types.Package

func (i importers) Import(path string) (*types.Package, error) { return i[path], nil }

func check(t *testing.T, path, source string, known importers) *types.Package {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	config := types.Config{Importer: known}
	pkg, err := config.Check(path, files, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pkg
}

func TestEveryWayToShowAnInternalTypeIsFound(t *testing.T) {
	const path = module + "internal/w"
	w := check(t, path, "package w; type T struct{}; func (T) M() {}; type I interface{ M() }", nil)
	header := "package p\nimport \"" + path + "\"\n"
	for _, declaration := range []string{
		"func F(*w.T) {}",
		"func F() (int, []w.T) { return 0, nil }",
		"func F[X w.I](X) {}",
		"var F map[string][2]w.T",
		"var F = w.T{}",
		"type F struct{ X chan w.T }",
		"type F struct{ w.T }",
		"type F struct{ f }\ntype f struct{ X w.T }",
		"type F struct{ *f }\ntype f struct{}\nfunc (*f) M(w.T) {}",
		"type F []w.T",
		"type F = w.T",
		"type F interface{ M(func(w.T)) }",
		"type F interface{ w.I }",
		"type F[X w.I] struct{}",
		"type F int\nfunc (*F) M() w.T { return w.T{} }",
		"func F() f { return f{} }\ntype f struct{}\nfunc (f) M() w.T { return w.T{} }",
	} {
		p := check(t, module+"p", header+declaration, importers{path: w})
		if faults := exposed(p); len(faults) != 1 || !strings.HasPrefix(faults[0], "F: internal/w.") {
			t.Errorf("%s\nshows %q, want one fault", declaration, faults)
		}
	}
	hidden := "type F struct{ x w.T }\nfunc (F) m(w.T) {}\nvar f w.T\nfunc g(w.T) {}\nvar _ = f"
	if faults := exposed(check(t, module+"p", header+hidden, importers{path: w})); len(faults) > 0 {
		t.Errorf("%s\nshows %q, want nothing", hidden, faults)
	}
}
