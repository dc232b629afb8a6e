package operator

import (
	"errors"
	"os"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// refs returns the refs of the identity's key packages, the oldest first.
func (f *fixture) refs(t *testing.T, name string) (refs [][]byte) {
	t.Helper()
	records, err := f.KeyPackages(t.Context(), store.Filter{Identity: name})
	if err != nil {
		t.Fatal(err)
	}
	for record, err := range records {
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, record.Ref)
	}
	return refs
}

func TestAKeyPackageIsClaimedOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 3})
		first, err := f.Claim(t.Context(), "alice", 2)
		if err != nil || len(first) != 2 {
			t.Fatalf("Claim() = %d, %v, want 2", len(first), err)
		}
		rest, err := f.Claim(t.Context(), "alice", 2)
		if !errors.Is(err, ErrNoneLeft) || len(rest) != 1 {
			t.Errorf("Claim() = %d, %v, want the last one and %v", len(rest), err, ErrNoneLeft)
		}
		if _, err := f.Claim(t.Context(), "alice", 1); !errors.Is(err, ErrNoneLeft) {
			t.Errorf("Claim() of nothing err = %v, want %v", err, ErrNoneLeft)
		}
		if _, err := f.Claim(t.Context(), "nobody", 1); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("Claim() of nobody err = %v, want %v", err, ErrNoIdentity)
		}
		if e := f.lastEntry(t, "alice"); e.Act != audit.Claimed {
			t.Errorf("the last entry is %q, want %q", e.Act, audit.Claimed)
		}
	})
}

func TestAKeyPackageIsExportedOnceUnlessAgain(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 2})
		r := ExportRequest{Refs: f.refs(t, "alice"), Folder: t.TempDir()}
		exported, err := f.Export(t.Context(), r)
		if err != nil || len(exported) != 2 {
			t.Fatalf("Export() = %v, %v, want 2", exported, err)
		}
		for _, e := range exported {
			if _, err := os.Stat(e.File); err != nil {
				t.Error(err)
			}
		}
		if _, err := f.Export(t.Context(), r); !errors.Is(err, store.ErrState) {
			t.Errorf("Export() of what was exported err = %v, want %v", err, store.ErrState)
		}
		r.Again, r.Folder = true, t.TempDir()
		if exported, err := f.Export(t.Context(), r); err != nil || len(exported) != 2 {
			t.Errorf("Export() again = %v, %v, want 2", exported, err)
		}
	})
}

// A key package that cannot be written stays pending: it is not handed out, and an export of
// pending key packages writes it.
func TestAnExportThatFailsIsTakenUpAgain(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 2})
		folder := t.TempDir()
		if err := os.Mkdir(folder+"/"+keyPackageFile(f.refs(t, "alice")[1]), 0o700); err != nil { // in its way
			t.Fatal(err)
		}
		if _, err := f.Export(t.Context(), ExportRequest{Refs: f.refs(t, "alice"), Folder: folder}); err == nil {
			t.Fatal("Export() err = nil, want one: a folder has the name of a file")
		}
		if w := f.reported.warnings; len(w) == 0 || !errors.Is(w[len(w)-1], ErrLeftPending) {
			t.Errorf("warnings = %v, want %v at last", w, ErrLeftPending)
		}
		if _, err := f.Claim(t.Context(), "alice", 1); !errors.Is(err, ErrNoneLeft) {
			t.Errorf("Claim() of what is pending err = %v, want %v", err, ErrNoneLeft)
		}
		exported, err := f.Export(t.Context(), ExportRequest{Pending: true, Folder: t.TempDir()})
		if err != nil || len(exported) != 2 {
			t.Errorf("Export() of what is pending = %v, %v, want 2", exported, err)
		}
	})
}

func TestPrivateKeysLeaveOnlyIfTheConfigLetsThem(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 1})
		prefix := hexOf(f.refs(t, "alice")[0])
		if _, err := f.Unwrap(t.Context(), prefix); !errors.Is(err, ErrUnwrapRefused) {
			t.Errorf("Unwrap() err = %v, want %v", err, ErrUnwrapRefused)
		}
		if e := f.lastEntry(t, "alice"); e.Act != audit.Refused {
			t.Errorf("the last entry is %q, want %q", e.Act, audit.Refused)
		}
		f.settings.Unwrap.Allow = true
		keys, err := f.Unwrap(t.Context(), prefix)
		if err != nil || len(keys.InitKey) == 0 || len(keys.Encryption) == 0 {
			t.Fatalf("Unwrap() = %v, want both keys", err)
		}
		keys.Clear()
		if e := f.lastEntry(t, "alice"); e.Act != audit.Unwrapped {
			t.Errorf("the last entry is %q, want %q", e.Act, audit.Unwrapped)
		}
		if _, err := f.Unwrap(t.Context(), "00ff00ff"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Unwrap() of nothing err = %v, want %v", err, store.ErrNotFound)
		}
	})
}

func TestRefsAreResolvedOrAllFaultsAreSaid(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 2})
		refs := f.refs(t, "alice")
		got, err := f.Resolve(t.Context(), []string{hexOf(refs[0])[:16], hexOf(refs[1]), hexOf(refs[0])})
		if err != nil || len(got) != 2 {
			t.Errorf("Resolve() = %x, %v, want both, each once", got, err)
		}
		_, err = f.Resolve(t.Context(), []string{"zz", "00ff00ff"})
		if !errors.Is(err, inventory.ErrRef) || !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Resolve() err = %v, want both faults", err)
		}
		if _, err := f.Count(t.Context(), "nobody"); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("Count() of nobody err = %v, want %v", err, ErrNoIdentity)
		}
	})
}
