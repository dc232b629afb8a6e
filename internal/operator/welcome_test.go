package operator

import (
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/sample"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// sampleWelcome returns a Welcome for a new key package of an identity.
func (f *fixture) sampleWelcome(t *testing.T, name, custody string) (keypackage.Ref, *keypackage.Welcome) {
	t.Helper()
	var made store.KeyPackage
	f.generate(t, GenerateRequest{Identity: name, Count: 1, Custody: custody, Each: func(batch []Written) error { made = batch[0].KeyPackage; return nil }})
	kp, err := inventory.Public(&made)
	if err != nil {
		t.Fatal(err)
	}
	w, err := sample.Welcome(kp, f.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return made.Ref, w
}

func TestAWelcomeIsOpenedOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		for _, custody := range []string{"wrapped", "token"} {
			ref, w := f.sampleWelcome(t, "alice", custody)
			opened, err := f.OpenWelcome(t.Context(), OpenWelcomeRequest{Welcome: w})
			if err != nil {
				t.Fatalf("%s: OpenWelcome() err = %v, want nil", custody, err)
			}
			if opened.LeafKey != nil || opened.Record.State != store.Reserved {
				t.Errorf("%s: opened with a leaf key of %d bytes, %s, want none, reserved", custody, len(opened.LeafKey), opened.Record.State)
			}
			digest := opened.Record.WelcomeDigest
			opened.Clear()
			released, err := f.ReleaseWelcome(t.Context(), ref, digest)
			if err != nil || released.State != store.Available {
				t.Errorf("%s: ReleaseWelcome() = %s, %v, want available", custody, released.State, err)
			}
			if opened, err = f.OpenWelcome(t.Context(), OpenWelcomeRequest{Welcome: w, Identity: "alice"}); err != nil {
				t.Fatalf("%s: OpenWelcome() after its release err = %v, want nil", custody, err)
			}
			opened.Clear()
			if _, err := f.Reserved(t.Context(), ref.String(), "ffffffff"); !errors.Is(err, store.ErrState) {
				t.Errorf("%s: Reserved() for another Welcome err = %v, want %v", custody, err, store.ErrState)
			}
			confirmed, err := f.ConfirmWelcome(t.Context(), ref, digest)
			if err != nil || confirmed.State != store.Consumed || len(confirmed.Leaf) == 0 {
				t.Errorf("%s: ConfirmWelcome() = %s, %v, with a leaf of %d bytes, want consumed, with its leaf", custody, confirmed.State, err, len(confirmed.Leaf))
			}
			if _, err := f.OpenWelcome(t.Context(), OpenWelcomeRequest{Welcome: w}); !errors.Is(err, store.ErrConsumed) {
				t.Errorf("%s: OpenWelcome() once more err = %v, want %v", custody, err, store.ErrConsumed)
			}
			if erased, err := f.EraseLeaf(t.Context(), ref); err != nil || len(erased.Leaf) != 0 {
				t.Errorf("%s: EraseLeaf() leaves %d bytes, %v, want none", custody, len(erased.Leaf), err)
			}
		}
	})
}

// The leaf's private key is handed over only on request, and if the config allows it.
func TestTheLeafsKeyIsHandedOverOnlyIfTheConfigLetsIt(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		for _, c := range []struct{ allowed, asked bool }{{false, true}, {true, false}, {true, true}} {
			f.settings.Unwrap.Allow = c.allowed
			_, w := f.sampleWelcome(t, "alice", "wrapped")
			opened, err := f.OpenWelcome(t.Context(), OpenWelcomeRequest{Welcome: w, HandOverLeaf: c.asked})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(opened.LeafKey) > 0, c.allowed && c.asked; got != want {
				t.Errorf("allowed %v, asked %v: handed over %v, want %v", c.allowed, c.asked, got, want)
			}
			opened.Clear()
		}
	})
}

func TestAReservationEndsByItself(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		_, w := f.sampleWelcome(t, "alice", "wrapped")
		opened, err := f.OpenWelcome(t.Context(), OpenWelcomeRequest{Welcome: w})
		if err != nil {
			t.Fatal(err)
		}
		opened.Clear()
		f.clock.advance(time.Duration(f.settings.Welcome.Reservation) + time.Second)
		if swept, err := f.Sweep(t.Context(), SweepRequest{Unfinished: UnfinishedAfter}); err != nil || swept.Released != 1 {
			t.Errorf("Sweep() = %+v, %v, want a reservation ended", swept, err)
		}
	})
}
