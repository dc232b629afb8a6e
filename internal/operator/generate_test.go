package operator

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestKeyPackagesAreGenerated(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		var got []Written
		result, err := f.Generate(t.Context(), GenerateRequest{
			Identity: "alice", Count: 3, Lifetime: time.Hour, Folder: filepath.Join(t.TempDir(), "spool"),
			ApplicationID: []byte("relay"), Extensions: []keypackage.Extension{{Type: 0xF0A1, Data: []byte{1}}},
			Each: func(batch []Written) error { got = append(got, batch...); return nil },
		})
		if err != nil || result.Stored != 3 || result.Written != 3 || len(got) != 3 {
			t.Fatalf("Generate() = %+v, %v, with %d handed on, want 3", result, err, len(got))
		}
		for _, w := range got {
			kp, err := inventory.Public(&w.KeyPackage)
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.ReadFile(w.File)
			if err != nil || !bytes.Equal(file, kp.Message()) {
				t.Errorf("%s does not have the key package: %v", w.File, err)
			}
			stored, err := f.KeyPackage(t.Context(), w.Ref)
			if err != nil || stored.State != store.Published || w.State != store.Published {
				t.Errorf("state = %s, handed on as %s, %v, want published", stored.State, w.State, err)
			}
			if end := f.clock.Now().Add(time.Hour); !w.NotAfter.Equal(end) {
				t.Errorf("not after = %v, want %v", w.NotAfter, end)
			}
			if len(kp.Extensions) != 1 || len(kp.LeafNode.Extensions) != 1 {
				t.Errorf("extensions = %v and %v, want one each", kp.Extensions, kp.LeafNode.Extensions)
			}
		}
		if p := f.reported.progress; len(p) == 0 || p[len(p)-1].Done != 3 || p[len(p)-1].Of != 3 {
			t.Errorf("progress = %+v, want 3 of 3 at last", p)
		}
	})
}

func TestNothingIsGeneratedForWhoCannotSign(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "gone")
		if _, err := f.RetireIdentity(t.Context(), "gone"); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]error{"nobody": ErrNoIdentity, "gone": ErrRetired} {
			if _, err := f.Generate(t.Context(), GenerateRequest{Identity: name, Count: 1}); !errors.Is(err, want) {
				t.Errorf("Generate(%s) err = %v, want %v", name, err, want)
			}
		}
		f.identity(t, "alice")
		var request *act.RequestError
		if _, err := f.Generate(t.Context(), GenerateRequest{Identity: "alice", Count: 1, Custody: "resident"}); !errors.As(err, &request) {
			t.Errorf("Generate() in a custody that there is not: err = %v, want a RequestError", err)
		}
	})
}

// An interrupted run stores the current batch, and its result says how many there are.
func TestAnInterruptedGenerateSaysWhatIsStored(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.settings.Store.Batch = 2
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		result, err := f.over(t, f.store).Generate(ctx, GenerateRequest{Identity: "alice", Count: 1000, Each: func([]Written) error { cancel(); return nil }})
		if !errors.Is(err, ErrPartial) || result.Stored == 0 || result.Stored == 1000 {
			t.Fatalf("Generate() = %d stored, %v, want some and %v", result.Stored, err, ErrPartial)
		}
		counts, err := f.Count(t.Context(), "alice")
		if err != nil || counts[store.Available] != result.Stored {
			t.Errorf("available = %d, %v, want the %d of the result", counts[store.Available], err, result.Stored)
		}
	})
}

func TestOneOfLastResortIsReplacedWhenItIsDue(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		due := GenerateRequest{Identity: "alice", Count: 1, LastResort: true, IfDue: true}
		for i, want := range []struct {
			later   time.Duration
			due     bool
			retired uint64
		}{{0, true, 0}, {time.Hour, false, 0}, {time.Duration(f.settings.KeyPackages.LastResort.MaxAge), true, 1}} {
			f.clock.advance(want.later)
			got, err := f.Generate(t.Context(), due)
			if err != nil || got.Due != want.due || got.Retired != want.retired {
				t.Errorf("%d: Generate() = %+v, %v, want due %v, retired %d", i, got, err, want.due, want.retired)
			}
		}
	})
}
