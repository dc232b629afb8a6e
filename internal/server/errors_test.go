package server

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// mapped maps the errors of the packages below to the reason that callers get. The token's errors are
// operator.TokenFault's.
var mapped = map[string]struct {
	err  error
	want hsmkpv1.Reason
}{
	"operator.ErrNoIdentity":        {operator.ErrNoIdentity, hsmkpv1.Reason_REASON_NOT_FOUND},
	"operator.ErrRetired":           {operator.ErrRetired, hsmkpv1.Reason_REASON_STATE},
	"operator.ErrNoDirectory":       {operator.ErrNoDirectory, hsmkpv1.Reason_REASON_MALFORMED},
	"operator.ErrSeveral":           {operator.ErrSeveral, hsmkpv1.Reason_REASON_MALFORMED},
	"store.ErrNotFound":             {store.ErrNotFound, hsmkpv1.Reason_REASON_NOT_FOUND},
	"store.ErrExists":               {store.ErrExists, hsmkpv1.Reason_REASON_STATE},
	"store.ErrState":                {store.ErrState, hsmkpv1.Reason_REASON_STATE},
	"store.ErrReserved":             {store.ErrReserved, hsmkpv1.Reason_REASON_RESERVED},
	"store.ErrConsumed":             {store.ErrConsumed, hsmkpv1.Reason_REASON_CONSUMED},
	"store.ErrErased":               {store.ErrErased, hsmkpv1.Reason_REASON_ERASED},
	"store.ErrHeld":                 {store.ErrHeld, hsmkpv1.Reason_REASON_BUSY},
	"store.ErrInUse":                {store.ErrInUse, hsmkpv1.Reason_REASON_STATE},
	"store.ErrWrappingKey":          {store.ErrWrappingKey, hsmkpv1.Reason_REASON_BUSY},
	"store.ErrRewrapped":            {store.ErrRewrapped, hsmkpv1.Reason_REASON_BUSY},
	"store.ErrBusy":                 {store.ErrBusy, hsmkpv1.Reason_REASON_STORE},
	"store.ErrFull":                 {store.ErrFull, hsmkpv1.Reason_REASON_STORE},
	"store.ErrReadOnly":             {store.ErrReadOnly, hsmkpv1.Reason_REASON_STORE},
	"store.ErrAway":                 {store.ErrAway, hsmkpv1.Reason_REASON_STORE},
	"store.ErrLogin":                {store.ErrLogin, hsmkpv1.Reason_REASON_STORE},
	"store.ErrNoDatabase":           {store.ErrNoDatabase, hsmkpv1.Reason_REASON_STORE},
	"store.ErrForDevice":            {store.ErrForDevice, hsmkpv1.Reason_REASON_STATE},
	"store.ErrOtherRelease":         {store.ErrOtherRelease, hsmkpv1.Reason_REASON_STATE},
	"store.ErrDamaged":              {store.ErrDamaged, hsmkpv1.Reason_REASON_STORE},
	"store.SchemaError":             {&store.SchemaError{Have: 2, Known: 1}, hsmkpv1.Reason_REASON_STORE},
	"vault.ErrSealed":               {vault.ErrSealed, hsmkpv1.Reason_REASON_INTEGRITY},
	"vault.ErrMixedUp":              {vault.ErrMixedUp, hsmkpv1.Reason_REASON_INTEGRITY},
	"vault.ErrWeakKey":              {vault.ErrWeakKey, hsmkpv1.Reason_REASON_INTEGRITY},
	"vault.ErrStamp":                {vault.ErrStamp, hsmkpv1.Reason_REASON_INTEGRITY},
	"vault.ErrCustody":              {vault.ErrCustody, hsmkpv1.Reason_REASON_POLICY},
	"hpke.ErrOpen":                  {hpke.ErrOpen, hsmkpv1.Reason_REASON_NOT_OPENED},
	"hpke.ErrKeyMismatch":           {hpke.ErrKeyMismatch, hsmkpv1.Reason_REASON_INTEGRITY},
	"hpke.ErrCleared":               {hpke.ErrCleared, hsmkpv1.Reason_REASON_UNSPECIFIED}, // a bug of this program
	"inventory.ErrUnderWay":         {inventory.ErrUnderWay, hsmkpv1.Reason_REASON_BUSY},
	"inventory.ErrOtherToken":       {inventory.ErrOtherToken, hsmkpv1.Reason_REASON_POLICY},
	"inventory.ErrAmbiguousRef":     {inventory.ErrAmbiguousRef, hsmkpv1.Reason_REASON_MALFORMED},
	"inventory.ErrRef":              {inventory.ErrRef, hsmkpv1.Reason_REASON_MALFORMED},
	"inventory.ErrSuiteUnknown":     {inventory.ErrSuiteUnknown, hsmkpv1.Reason_REASON_POLICY},
	"inventory.ErrMixedUp":          {inventory.ErrMixedUp, hsmkpv1.Reason_REASON_INTEGRITY},
	"inventory.ErrNothingToShow":    {inventory.ErrNothingToShow, hsmkpv1.Reason_REASON_POLICY},
	"inventory.ErrAtDevice":         {inventory.ErrAtDevice, hsmkpv1.Reason_REASON_STATE},
	"inventory.ErrNoLeaf":           {inventory.ErrNoLeaf, hsmkpv1.Reason_REASON_ERASED},
	"inventory.ErrWrappingKeySpent": {inventory.ErrWrappingKeySpent, hsmkpv1.Reason_REASON_POLICY},
	"inventory.ErrTooMany":          {inventory.ErrTooMany, hsmkpv1.Reason_REASON_MALFORMED},
	"inventory.ErrInterrupted":      {inventory.ErrInterrupted, hsmkpv1.Reason_REASON_UNSPECIFIED},
	"inventory.ErrNotOurs":          {inventory.ErrNotOurs, hsmkpv1.Reason_REASON_NOT_FOUND},
	"inventory.ErrNoWrappingKey":    {inventory.ErrNoWrappingKey, hsmkpv1.Reason_REASON_POLICY},
	"identity.ErrName":              {identity.ErrName, hsmkpv1.Reason_REASON_MALFORMED},
	"identity.ErrKeyMismatch":       {identity.ErrKeyMismatch, hsmkpv1.Reason_REASON_INTEGRITY},
	"identity.ErrNoCertificate":     {identity.ErrNoCertificate, hsmkpv1.Reason_REASON_POLICY},
	"identity.ChainError":           {new(identity.ChainError), hsmkpv1.Reason_REASON_POLICY},
	"identity.MissingError":         {new(identity.MissingError), hsmkpv1.Reason_REASON_POLICY},
	"keypackage.ErrSignerFault":     {keypackage.ErrSignerFault, hsmkpv1.Reason_REASON_INTEGRITY},
	"keypackage.ErrVersion":         {keypackage.ErrVersion, hsmkpv1.Reason_REASON_UNSPECIFIED},      // of a parser, which checks turn into malformed
	"keypackage.ErrSource":          {keypackage.ErrSource, hsmkpv1.Reason_REASON_UNSPECIFIED},       // the same
	"keypackage.ErrTruncated":       {keypackage.ErrTruncated, hsmkpv1.Reason_REASON_UNSPECIFIED},    // the same
	"keypackage.ErrTrailing":        {keypackage.ErrTrailing, hsmkpv1.Reason_REASON_UNSPECIFIED},     // the same
	"keypackage.ErrLength":          {keypackage.ErrLength, hsmkpv1.Reason_REASON_UNSPECIFIED},       // the same
	"keypackage.ErrCertificates":    {keypackage.ErrCertificates, hsmkpv1.Reason_REASON_UNSPECIFIED}, // the same
	"welcome.ErrNotForIt":           {welcome.ErrNotForIt, hsmkpv1.Reason_REASON_NOT_OPENED},
	"welcome.ErrSuite":              {welcome.ErrSuite, hsmkpv1.Reason_REASON_NOT_OPENED},
	"welcome.ErrForged":             {welcome.ErrForged, hsmkpv1.Reason_REASON_NOT_OPENED},
	"welcome.ErrConfirmation":       {welcome.ErrConfirmation, hsmkpv1.Reason_REASON_NOT_OPENED},
	"welcome.ErrSignature":          {welcome.ErrSignature, hsmkpv1.Reason_REASON_NOT_OPENED},
	"welcome.MissingPSKError":       {&welcome.MissingPSKError{Missing: make([]welcome.PSKID, 1)}, hsmkpv1.Reason_REASON_NOT_OPENED},
}

func TestEachErrorFromBelowIsTold(t *testing.T) {
	s := new(Server)
	for name, tt := range mapped {
		f := s.faultOf(fmt.Errorf("do it: %w", tt.err))
		if f.reason != tt.want {
			t.Errorf("%s is reported as %v, want %v", name, f.reason, tt.want)
		}
		if f == errInternal && tt.want != hsmkpv1.Reason_REASON_UNSPECIFIED {
			t.Errorf("%s is reported as an internal error", name)
		}
	}
}

// An error that is added to a package below must be added here too.
func TestNoErrorFromBelowIsForgotten(t *testing.T) {
	root := filepath.Join("..", "..")
	for _, dir := range []string{"internal/store", "vault", "hpke", "internal/inventory", "internal/identity", "keypackage", "welcome"} {
		room := path.Base(dir)
		names := exportedErrors(t, filepath.Join(root, filepath.FromSlash(dir)))
		if len(names) == 0 {
			t.Errorf("%s has no errors: does the test look in the right place?", room)
		}
		for _, name := range names {
			if _, ok := mapped[room+"."+name]; !ok {
				t.Errorf("%s.%s has no line in mapped", room, name)
			}
		}
	}
}

// exportedErrors returns the variables Err... and the types ...Error of a package.
func exportedErrors(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok {
				out = append(out, errorsOf(d)...)
			}
		}
	}
	return out
}

func errorsOf(d *ast.GenDecl) (out []string) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if d.Tok == token.VAR && strings.HasPrefix(name.Name, "Err") {
					out = append(out, name.Name)
				}
			}
		case *ast.TypeSpec:
			if spec.Name.IsExported() && strings.HasSuffix(spec.Name.Name, "Error") {
				out = append(out, spec.Name.Name)
			}
		}
	}
	return out
}

// The text of an error from a library below goes to the log alone.
func TestAnUnknownErrorIsInternal(t *testing.T) {
	err := errors.New("/var/lib/hsm-kp/store.db: secret")
	if f := new(Server).faultOf(err); f != errInternal {
		t.Errorf("faultOf() = %v, want %v", f, errInternal)
	}
}

// docs/API.md has a row for each reason and code that a caller may get.
func TestTheManualHasEveryFault(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "API.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := []*fault{errNotGranted, errBusy, errLabel, errNoneLeft, errNotFound, tooMany(0), quotaSpent(0), malformed("")}
	for i := range faults {
		all = append(all, faults[i].as)
	}
	for _, f := range all {
		row := "| – | "
		if f.reason != hsmkpv1.Reason_REASON_UNSPECIFIED {
			row = "| `" + strings.TrimPrefix(f.reason.String(), "REASON_") + "` | "
		}
		code := strings.ToUpper(f.code.String())
		if !strings.Contains(string(text), row+code) && !strings.Contains(string(text), ", "+code) {
			t.Errorf("docs/API.md has no row %q", row+code)
		}
	}
	for value, name := range hsmkpv1.Reason_name {
		short := strings.TrimPrefix(name, "REASON_")
		if value != 0 && !strings.Contains(string(text), "`"+short+"`") && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/API.md does not have %s", name)
		}
	}
	for _, op := range act.Granted() {
		if !strings.Contains(string(text), "`"+op+"`") {
			t.Errorf("docs/API.md does not have the operation %s", op)
		}
	}
}
