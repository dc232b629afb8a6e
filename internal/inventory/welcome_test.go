package inventory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// makeOne generates a key package of an identity.
func makeOne(t *testing.T, f *fixture, id ciphersuite.ID, lastResort bool) *keypackage.KeyPackage {
	t.Helper()
	return makeOneAs(t, f, "alice of suite "+id.String(), id, lastResort)
}

func makeOneAs(t *testing.T, f *fixture, name string, id ciphersuite.ID, lastResort bool) *keypackage.KeyPackage {
	t.Helper()
	r := request(f.identity(t, name, id), 1)
	r.LastResort, r.Custody = lastResort, f.custody
	var kp *keypackage.KeyPackage
	_, err := f.inventory().Generate(t.Context(), r, func(batch []store.KeyPackage) (err error) {
		kp, err = keypackage.Parse(batch[0].Public)
		return err
	})
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	return kp
}

func ask(w *keypackage.Welcome) inventory.WelcomeRequest {
	return inventory.WelcomeRequest{Welcome: w, Now: now, Until: now.Add(time.Minute)}
}

func wantState(t *testing.T, f *fixture, kp *keypackage.KeyPackage, want store.State) store.KeyPackage {
	t.Helper()
	ref, err := kp.Ref()
	if err != nil {
		t.Fatal(err)
	}
	record, err := f.store.KeyPackage(t.Context(), ref)
	if err != nil || record.State != want {
		t.Errorf("KeyPackage() is %s, %v, want %s", record.State, err, want)
	}
	return record
}

func TestAWelcomeIsOpenedOnce(t *testing.T) { inEachCustody(t, opensOnce) }

func opensOnce(t *testing.T, f *fixture, suites []*ciphersuite.Suite) {
	for _, s := range suites {
		kp := makeOne(t, f, s.ID, false)
		g := welcometest.NewGroup(t, s)
		w := g.Welcome(kp)
		opened, err := f.inventory().OpenWelcome(t.Context(), ask(w))
		if err != nil {
			t.Fatalf("OpenWelcome() err = %v, want nil", err)
		}
		if string(opened.JoinerSecret) != string(g.Joiner) || string(opened.Keys.Encryption.PublicKey()) != string(kp.LeafNode.EncryptionKey) {
			t.Errorf("OpenWelcome() = %+v, want the group's joiner secret and the leaf's key", opened)
		}
		opened.Clear()
		wantState(t, f, kp, store.Reserved)

		// A caller that was killed can open it again; no other Welcome can be opened with it.
		if again, err := f.inventory().OpenWelcome(t.Context(), ask(w)); err != nil {
			t.Errorf("OpenWelcome() again err = %v, want nil", err)
		} else {
			again.Clear()
		}
		if _, err := f.again(t).OpenWelcome(t.Context(), ask(g.Welcome(kp))); !errors.Is(err, store.ErrReserved) {
			t.Errorf("OpenWelcome() of another Welcome err = %v, want ErrReserved", err)
		}

		ref := keypackage.Ref(opened.Record.Ref)
		if err := f.inventory().Confirm(t.Context(), ref, inventory.WelcomeDigest(w), now); err != nil {
			t.Fatalf("Confirm() err = %v, want nil", err)
		}
		if record := wantState(t, f, kp, store.Consumed); len(record.Sealed) != 0 {
			t.Errorf("after Confirm() %d sealed bytes are left, want none", len(record.Sealed))
		}
		for _, w := range []*keypackage.Welcome{w, g.Welcome(kp)} {
			if _, err := f.inventory().OpenWelcome(t.Context(), ask(w)); !errors.Is(err, store.ErrConsumed) {
				t.Errorf("OpenWelcome() after Confirm() err = %v, want ErrConsumed", err)
			}
		}
		if _, err := f.inventory().PrivateKeys(t.Context(), ref, now); !errors.Is(err, store.ErrConsumed) {
			t.Errorf("PrivateKeys() after Confirm() err = %v, want ErrConsumed", err)
		}
		if err := f.inventory().Confirm(t.Context(), ref, inventory.WelcomeDigest(w), now); !errors.Is(err, store.ErrState) {
			t.Errorf("Confirm() again err = %v, want ErrState", err)
		}
	}
}

func TestAWelcomeThatDoesNotOpenCostsNothing(t *testing.T) { inEachCustody(t, costsNothing) }

func costsNothing(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
	kp := makeOne(t, f, 2, false)
	g := welcometest.NewGroup(t, suite(t, 2))
	forged := g.Welcome(kp)
	forged.EncryptedGroupInfo[0] ^= 1
	g.PSKs = []byte{1, 2, 'i', 'd', 1, 'n'}
	for name, test := range map[string]struct {
		welcome *keypackage.Welcome
		fits    func(error) bool
	}{
		"forged":    {forged, func(err error) bool { return errors.Is(err, welcome.ErrForged) }},
		"of a PSK":  {g.Welcome(kp), func(err error) bool { _, ok := errors.AsType[*welcome.MissingPSKError](err); return ok }},
		"of others": {welcometest.NewGroup(t, suite(t, 2)).Welcome(), func(err error) bool { return errors.Is(err, inventory.ErrNotOurs) }},
	} {
		if _, err := f.inventory().OpenWelcome(t.Context(), ask(test.welcome)); err == nil || !test.fits(err) {
			t.Errorf("%s: OpenWelcome() err = %v", name, err)
		}
		wantState(t, f, kp, store.Available)
	}
	good := welcometest.NewGroup(t, suite(t, 2)).Welcome(kp)
	if _, err := f.inventory().OpenWelcome(t.Context(), ask(good)); err != nil {
		t.Fatalf("OpenWelcome() err = %v, want nil", err)
	}
	// A forged Welcome does not end the reservation of the good one, and does not replace it when
	// its time is over.
	for _, at := range []time.Time{now, now.Add(time.Hour)} {
		late := ask(forged)
		late.Now, late.Until = at, at.Add(time.Minute)
		if _, err := f.inventory().OpenWelcome(t.Context(), late); !errors.Is(err, store.ErrReserved) && !errors.Is(err, welcome.ErrForged) {
			t.Errorf("OpenWelcome() of a forged one err = %v, want ErrReserved or ErrForged", err)
		}
		if record := wantState(t, f, kp, store.Reserved); string(record.WelcomeDigest) != string(inventory.WelcomeDigest(good)) {
			t.Error("a forged Welcome took the reservation")
		}
	}
	wantState(t, f, kp, store.Reserved)
	ref, err := kp.Ref()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.inventory().Release(t.Context(), ref, inventory.WelcomeDigest(good), now); err != nil {
		t.Errorf("Release() err = %v, want nil", err)
	}
	wantState(t, f, kp, store.Available)
}

func TestALastResortIsOpenedMoreThanOnce(t *testing.T) { inEachCustody(t, opensMoreThanOnce) }

func opensMoreThanOnce(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
	kp := makeOne(t, f, 2, true)
	for range 2 {
		w := welcometest.NewGroup(t, suite(t, 2)).Welcome(kp)
		opened, err := f.inventory().OpenWelcome(t.Context(), ask(w))
		if err != nil {
			t.Fatalf("OpenWelcome() err = %v, want nil", err)
		}
		if err := f.inventory().Confirm(t.Context(), keypackage.Ref(opened.Record.Ref), inventory.WelcomeDigest(w), now); err != nil {
			t.Fatalf("Confirm() err = %v, want nil", err)
		}
	}
	if record := wantState(t, f, kp, store.Available); record.Opened != 2 || len(record.Sealed) == 0 {
		t.Errorf("a last resort is %+v, want it opened twice, with its keys", record)
	}
}

// A Welcome may add several clients that share one store.
func TestAWelcomeForTwoOfOurs(t *testing.T) { inEachCustody(t, forTwoOfOurs) }

func forTwoOfOurs(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
	alice, bob := makeOne(t, f, 2, false), makeOneAs(t, f, "bob", 2, false)
	w := welcometest.NewGroup(t, suite(t, 2)).Welcome(alice, bob)
	only := ask(w)
	only.Identity = "bob"
	opened, err := f.inventory().OpenWelcome(t.Context(), only)
	if err != nil || opened.Record.Identity != "bob" {
		t.Fatalf("OpenWelcome() for bob = %+v, %v", opened, err)
	}
	opened, err = f.inventory().OpenWelcome(t.Context(), ask(w))
	if err != nil || opened.Record.Identity == "bob" {
		t.Fatalf("OpenWelcome() = %+v, %v, want the first", opened, err)
	}
	if err := f.inventory().Confirm(t.Context(), keypackage.Ref(opened.Record.Ref), inventory.WelcomeDigest(w), now); err != nil {
		t.Fatal(err)
	}
	opened, err = f.inventory().OpenWelcome(t.Context(), ask(w))
	if err != nil || opened.Record.Identity != "bob" {
		t.Errorf("OpenWelcome() after the first was consumed = %+v, %v, want bob's", opened, err)
	}
	only.Identity = "carol"
	if _, err := f.inventory().OpenWelcome(t.Context(), only); !errors.Is(err, inventory.ErrNotOurs) {
		t.Errorf("OpenWelcome() for carol err = %v, want ErrNotOurs", err)
	}
}
