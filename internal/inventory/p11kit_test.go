package inventory_test

import (
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
	"github.com/hsm-kp/hsm-kp/vault"
)

// The process that runs the module is killed during a batch, again and again: each key package is
// made once, and opens.
func TestABatchOutlivesTheProcessOfTheModule(t *testing.T) {
	server := vendortest.P11Kit(t, softhsmtest.Config(t))
	cfg := server.Config()
	cfg.Quirks.OneAtATime = true
	cfg.Patience = time.Minute
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	t.Cleanup(func() { tok.Close() })
	f := newBareFixtureOn(t, tok)
	f.seals, f.custody = vault.RSAOAEP, vault.CustodyWrapped
	f.addWrappingKey(t)

	const count = 200
	r := request(f.identity(t, "alice", 2), count)
	killed := 0
	var s shown
	take := func(batch []store.KeyPackage) error {
		if err := s.take(batch); err != nil {
			return err
		}
		if len(s.refs)%50 == 0 {
			killed += server.KillModules()
		}
		return nil
	}
	if n, err := f.inventory().Generate(t.Context(), r, take); n != count || err != nil {
		t.Fatalf("Generate() = %d, %v, want %d", n, err, count)
	}
	if killed == 0 {
		t.Error("no process was killed")
	}
	server.KillModules()
	inv := f.inventory()
	var users sync.WaitGroup
	seen := make(map[string]bool)
	for i, ref := range s.refs {
		if seen[string(ref)] {
			t.Errorf("%v was shown twice", ref)
		}
		seen[string(ref)] = true
		if i%10 != 0 {
			continue
		}
		users.Go(func() {
			keys, err := inv.PrivateKeys(t.Context(), ref, now)
			if err != nil {
				t.Errorf("PrivateKeys() err = %v, want nil", err)
				return
			}
			keys.Clear()
		})
	}
	users.Wait()
	t.Logf("%d processes were killed", killed)
}
