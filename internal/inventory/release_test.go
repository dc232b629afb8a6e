package inventory_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	stdlib "crypto/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// enrolled is a device with a key of Go's HPKE. It knows only the documented form.
type enrolled struct {
	suite *ciphersuite.Suite
	key   stdlib.PrivateKey
	kdf   stdlib.KDF
	aead  stdlib.AEAD
}

func enroll(t *testing.T, s *ciphersuite.Suite) enrolled {
	t.Helper()
	kem, err := stdlib.NewKEM(s.KEM)
	if err != nil {
		t.Fatal(err)
	}
	d := enrolled{suite: s}
	if d.key, err = kem.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	if d.kdf, err = stdlib.NewKDF(s.KDF); err != nil {
		t.Fatal(err)
	}
	if d.aead, err = stdlib.NewAEAD(s.AEAD); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d enrolled) public() []byte { return d.key.PublicKey().Bytes() }

// open opens what was released for a key package, whose ref the device computes itself.
func (d enrolled) open(kp *keypackage.KeyPackage, r vault.Released) (initKey, encryptionKey []byte, err error) {
	ref, err := kp.Ref()
	if err != nil {
		return nil, nil, err
	}
	recipient, err := stdlib.NewRecipient(r.Enc, d.key, d.kdf, d.aead, vault.ReleaseInfo(d.suite.ID, ref))
	if err != nil {
		return nil, nil, err
	}
	plaintext, err := recipient.Open(nil, r.Ciphertext)
	if err != nil {
		return nil, nil, err
	}
	in := wire.NewReader(plaintext)
	initKey, encryptionKey = in.Vector(), in.Vector()
	return initKey, encryptionKey, in.Finish()
}

// forRelease makes key packages for a device.
func (f *fixture) forRelease(t *testing.T, d enrolled, name string, n uint64) []store.KeyPackage {
	t.Helper()
	r := request(f.identity(t, name, d.suite.ID), n)
	r.Custody, r.ReleaseKey = vault.CustodyRelease, d.public()
	var made []store.KeyPackage
	if _, err := f.inventory().Generate(t.Context(), r, func(b []store.KeyPackage) error {
		made = append(made, b...)
		return nil
	}); err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	return made
}

func TestPrivateKeysAreReleasedToADevice(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, suites []*ciphersuite.Suite) {
		if f.custody == vault.CustodyToken {
			t.Skip("keys in the token are released to nobody")
		}
		for _, s := range suites {
			if s.ID == 4 || s.ID == 6 {
				continue // crypto/hpke has no X448
			}
			t.Run(s.Name, func(t *testing.T) { releasedToADevice(t, f, s) })
		}
	})
}

func releasedToADevice(t *testing.T, f *fixture, s *ciphersuite.Suite) {
	inv, device, thief := f.inventory(), enroll(t, s), enroll(t, s)
	made := f.forRelease(t, device, s.Name, 3)
	refs := [][]byte{made[0].Ref, made[1].Ref}
	if made[0].Custody != vault.CustodyRelease || !bytes.Equal(made[0].ReleaseDigest, vault.ReleaseDigest(device.public())) || made[0].State != store.Available {
		t.Fatalf("it was made as %+v", made[0])
	}
	if _, err := inv.HandOver(t.Context(), made, thief.public(), now); !errors.Is(err, store.ErrOtherRelease) {
		t.Errorf("HandOver() to another key err = %v, want %v", err, store.ErrOtherRelease)
	}
	if _, err := inv.ConfirmHandover(t.Context(), refs, now); !errors.Is(err, store.ErrState) {
		t.Errorf("ConfirmHandover() before it was handed over err = %v, want %v", err, store.ErrState)
	}

	first, err := inv.HandOver(t.Context(), made, device.public(), now)
	if err != nil {
		t.Fatalf("HandOver() err = %v, want nil", err)
	}
	again, err := f.again(t).HandOver(t.Context(), made[:1], device.public(), now.Add(time.Hour))
	if err != nil || bytes.Equal(again[0].Ciphertext, first[0].Ciphertext) {
		t.Fatalf("HandOver() again err = %v, or the same bytes", err)
	}
	for i, r := range append(again, first...) {
		record := &made[max(i-1, 0)]
		kp, err := inventory.Public(record)
		if err != nil {
			t.Fatal(err)
		}
		opensWhatItHas(t, f, device, kp, r)
		if _, _, err := thief.open(kp, r); err == nil {
			t.Error("another device opens it")
		}
	}
	hereNobodyUsesThem(t, inv, &made[0])

	for _, want := range []uint64{2, 0} {
		if n, err := inv.ConfirmHandover(t.Context(), refs, now); err != nil || n != want {
			t.Errorf("ConfirmHandover() = %d, %v, want %d", n, err, want)
		}
	}
	confirmed, err := f.store.KeyPackage(t.Context(), refs[0])
	if err != nil || len(confirmed.Sealed) != 0 || confirmed.ConfirmedAt.IsZero() || confirmed.State != store.Available || confirmed.Custody != vault.CustodyRelease {
		t.Errorf("once confirmed it is %+v, %v", confirmed, err)
	}
	if _, err := inv.HandOver(t.Context(), []store.KeyPackage{confirmed}, device.public(), now); !errors.Is(err, store.ErrState) {
		t.Errorf("HandOver() of a confirmed one err = %v, want %v", err, store.ErrState)
	}
	if _, err := inv.HandOver(t.Context(), made[:1], device.public(), now); !errors.Is(err, store.ErrState) {
		t.Errorf("HandOver() of one that was confirmed since err = %v, want %v", err, store.ErrState)
	}
	hereNobodyUsesThem(t, inv, &confirmed)
	if claimed, err := f.store.Claim(t.Context(), s.Name, 5, now); err != nil || len(claimed) != 2 {
		t.Errorf("Claim() = %d, %v, want the two that are confirmed", len(claimed), err)
	}
}

// opensWhatItHas lets the device open a Welcome and a path secret with the released keys.
func opensWhatItHas(t *testing.T, f *fixture, d enrolled, kp *keypackage.KeyPackage, r vault.Released) {
	t.Helper()
	private, encryption, err := d.open(kp, r)
	if err != nil {
		t.Fatalf("the device opens what was released to it: err = %v, want nil", err)
	}
	initKey, err := hpke.ParsePrivateKey(d.suite, private)
	if err != nil || !bytes.Equal(initKey.PublicKey(), kp.InitKey) || len(private) != d.suite.Nsk {
		t.Fatalf("the init key has %d bytes, or is another, err = %v", len(private), err)
	}
	leafKey, err := hpke.ParsePrivateKey(d.suite, encryption)
	if err != nil || !bytes.Equal(leafKey.PublicKey(), kp.LeafNode.EncryptionKey) {
		t.Fatalf("the encryption key is another, err = %v", err)
	}
	g := welcometest.NewGroup(t, d.suite)
	opened, err := welcome.Open(g.Welcome(kp), kp, initKey, welcome.Options{})
	if err != nil || !bytes.Equal(opened.JoinerSecret, g.Joiner) {
		t.Errorf("the device opens a Welcome: err = %v, want nil", err)
	}
}

// hereNobodyUsesThem requests what only the device may do.
func hereNobodyUsesThem(t *testing.T, inv *inventory.Inventory, record *store.KeyPackage) {
	t.Helper()
	kp, err := inventory.Public(record)
	if err != nil {
		t.Fatal(err)
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	w := welcometest.NewGroup(t, suite).Welcome(kp)
	_, err = inv.OpenWelcome(t.Context(), inventory.WelcomeRequest{Welcome: w, Now: now, Until: now.Add(time.Hour)})
	if !errors.Is(err, store.ErrForDevice) {
		t.Errorf("OpenWelcome() err = %v, want %v", err, store.ErrForDevice)
	}
	if _, err := inv.PrivateKeys(t.Context(), record.Ref, now); !errors.Is(err, store.ErrForDevice) {
		t.Errorf("PrivateKeys() err = %v, want %v", err, store.ErrForDevice)
	}
	if _, err := inv.DecryptPathSecret(t.Context(), record.Ref, inventory.Ciphertext{}, now); err == nil {
		t.Error("DecryptPathSecret() err = nil, want one")
	}
}

// Someone who can write to the store and to a manifest, but cannot use the token, gets no private
// keys released that were made for another device.
func TestAChangedRecordIsReleasedToNobody(t *testing.T) {
	f := newFixture(t)
	s := suite(t, 2)
	device, thief := enroll(t, s), enroll(t, s)
	made := f.forRelease(t, device, "phone", 1)
	own := makeOne(t, f, 2, false)
	ref, err := own.Ref()
	if err != nil {
		t.Fatal(err)
	}
	digest := vault.ReleaseDigest(thief.public())
	for _, changed := range [][]byte{made[0].Ref, ref} {
		f.exec(t, "UPDATE key_packages SET custody = 'release', release_digest = ? WHERE ref = ?", digest, changed)
		record, err := f.store.KeyPackage(t.Context(), changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.inventory().HandOver(t.Context(), []store.KeyPackage{record}, thief.public(), now); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("HandOver() of a changed record err = %v, want %v", err, vault.ErrSealed)
		}
	}
	f.exec(t, "UPDATE key_packages SET custody = 'wrapped', release_digest = NULL WHERE ref = ?", made[0].Ref)
	if _, err := f.inventory().PrivateKeys(t.Context(), made[0].Ref, now); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("PrivateKeys() of a changed record err = %v, want %v", err, vault.ErrSealed)
	}
}

func TestWhatIsForADeviceMovesToAnotherWrappingKey(t *testing.T) {
	f := newFixture(t)
	s := suite(t, 2)
	device := enroll(t, s)
	made := f.forRelease(t, device, "phone", 4)
	inv := f.inventory()
	if _, err := inv.HandOver(t.Context(), made[:2], device.public(), now); err != nil {
		t.Fatal(err)
	}
	if _, err := inv.ConfirmHandover(t.Context(), [][]byte{made[1].Ref}, now); err != nil {
		t.Fatal(err)
	}
	old := vault.KeyID(made[0].WrappingKeyID)
	f.addWrappingKey(t)
	if done, err := inv.Rewrap(t.Context(), old, now, nil); err != nil || done.KeyPackages != 3 {
		t.Fatalf("Rewrap() = %+v, %v, want three key packages", done, err)
	}
	if _, err := inv.DestroyWrappingKey(t.Context(), old, false, now, nil); err != nil {
		t.Fatalf("DestroyWrappingKey() err = %v, want nil", err)
	}
	// These records were read before the rewrap, so they are read again.
	released, err := inv.HandOver(t.Context(), []store.KeyPackage{made[0], made[2], made[3]}, device.public(), now)
	if err != nil {
		t.Fatalf("HandOver() of what was rewrapped since err = %v, want nil", err)
	}
	for i, record := range []store.KeyPackage{made[0], made[2], made[3]} {
		kp, err := inventory.Public(&record)
		if err != nil {
			t.Fatal(err)
		}
		opensWhatItHas(t, f, device, kp, released[i])
	}

	// What is shredded can no longer be released, and the device keeps what it has.
	current, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	f.addWrappingKey(t)
	if n, err := inv.DestroyWrappingKey(t.Context(), current.ID, true, now, nil); err != nil || n != 3 {
		t.Fatalf("DestroyWrappingKey() = %d, %v, want three", n, err)
	}
	if _, err := inv.HandOver(t.Context(), made[:1], device.public(), now); !errors.Is(err, store.ErrErased) {
		t.Errorf("HandOver() of a shredded one err = %v, want %v", err, store.ErrErased)
	}
	if kept, err := f.store.KeyPackage(t.Context(), made[1].Ref); err != nil || kept.State != store.Available {
		t.Errorf("the confirmed one is %s, %v, want available", kept.State, err)
	}
	if n, err := inv.ConfirmHandover(t.Context(), [][]byte{made[0].Ref, made[1].Ref}, now); err != nil || n != 0 {
		t.Errorf("ConfirmHandover() = %d, %v, want nothing left to erase", n, err)
	}
}

func TestAReleaseKeyIsChecked(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "phone", 2)
	for name, key := range map[string][]byte{"none": nil, "of another suite": enroll(t, suite(t, 1)).public(), "no point": make([]byte, 65)} {
		r := request(id, 1)
		r.Custody, r.ReleaseKey = vault.CustodyRelease, key
		if n, err := f.inventory().Generate(t.Context(), r, func([]store.KeyPackage) error { return nil }); err == nil || n != 0 {
			t.Errorf("%s: Generate() = %d, %v, want an error", name, n, err)
		}
	}
	if all := f.records(t); len(all) != 0 {
		t.Errorf("%d key packages were stored, want none", len(all))
	}
}

// A handover is recorded first: if the store fails, nobody gets anything. The trail says who it was
// for.
func TestNothingIsHandedOverThatIsNotRecorded(t *testing.T) {
	f := newFixture(t)
	device := enroll(t, suite(t, 2))
	made := f.forRelease(t, device, "phone", 2)
	ended, cancel := context.WithCancel(t.Context())
	f.config.Store = refusingHandovers{f.store, cancel}
	if released, err := f.inventory().HandOver(ended, made, device.public(), now); !errors.Is(err, context.Canceled) || released != nil {
		t.Errorf("HandOver() = %d, %v, want nothing and %v", len(released), err, context.Canceled)
	}
	f.config.Store = f.store
	if acts := actsOf(t, f, made[0].Ref); acts[audit.HandedOver] != "" {
		t.Error("the trail has a handover that was none")
	}
	if _, err := f.inventory().HandOver(t.Context(), made, device.public(), now); err != nil {
		t.Fatal(err)
	}
	acts := actsOf(t, f, made[0].Ref)
	if want := "release key " + hex.EncodeToString(vault.ReleaseDigest(device.public())); acts[audit.HandedOver] != want {
		t.Errorf("the trail says %q, want %q", acts[audit.HandedOver], want)
	}
	thief := enroll(t, suite(t, 2))
	f.inventory().HandOver(t.Context(), made, thief.public(), now)
	if acts := actsOf(t, f, made[0].Ref); acts[audit.Refused] != "hand over: another release key" {
		t.Errorf("the trail says %q of what was refused", acts[audit.Refused])
	}
}

// refusingHandovers is a store whose caller is canceled while it records a handover.
type refusingHandovers struct {
	store.Store
	cancel func()
}

func (s refusingHandovers) HandOver(ctx context.Context, refs [][]byte, digest []byte, at time.Time) error {
	s.cancel()
	return s.Store.HandOver(ctx, refs, digest, at)
}

// actsOf returns the last detail of each act on a key package.
func actsOf(t *testing.T, f *fixture, ref []byte) map[audit.Act]string {
	t.Helper()
	acts := make(map[audit.Act]string)
	for stored, err := range f.store.EntriesOf(t.Context(), ref) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		acts[e.Act] = e.Detail
	}
	return acts
}
