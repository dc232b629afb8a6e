package inventory_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// refStore is a store that only knows refs.
type refStore struct {
	store.Store
	refs [][]byte
}

func (s *refStore) FindRefs(_ context.Context, lo, hi []byte, limit int) ([][]byte, error) {
	var found [][]byte
	for _, ref := range s.refs {
		if bytes.Compare(lo, ref) <= 0 && bytes.Compare(ref, hi) <= 0 && len(found) < limit {
			found = append(found, ref)
		}
	}
	return found, nil
}

func TestResolve(t *testing.T) {
	// Refs of SHA-256, SHA-384 and SHA-512.
	a := "abcd" + strings.Repeat("0", 60)
	b := "abce" + strings.Repeat("f", 92)
	c := "abcf0" + strings.Repeat("e", 123)
	low, high := strings.Repeat("0", 64), strings.Repeat("f", 128)
	s := new(refStore)
	for _, text := range []string{a, b, c, low, high} {
		ref, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		s.refs = append(s.refs, ref)
	}
	inv := inventory.New(inventory.Config{Store: s})
	for _, tt := range []struct {
		prefix, want string
		err          error
	}{
		{prefix: a, want: a},
		{prefix: b, want: b},
		{prefix: c, want: c},
		{prefix: "abcd", want: a},
		{prefix: "abcd0", want: a},
		{prefix: "abcdef", err: store.ErrNotFound},
		{prefix: a[:63], want: a},
		{prefix: a + "0", err: store.ErrNotFound},
		{prefix: a + "00", err: store.ErrNotFound},
		{prefix: "abce", want: b},
		{prefix: "abcef", want: b},
		{prefix: "abce0", err: store.ErrNotFound},
		{prefix: b[:95], want: b},
		{prefix: c[:127], want: c},
		{prefix: strings.ToUpper(c), want: c},
		{prefix: "AbCf", want: c},
		{prefix: "abcf1", err: store.ErrNotFound},
		{prefix: "0000", want: low},
		{prefix: "00000", want: low},
		{prefix: "ffff", want: high},
		{prefix: "fffff", want: high},
		{prefix: high, want: high},
		{prefix: "1234", err: store.ErrNotFound},
		{prefix: "", err: inventory.ErrRef},
		{prefix: "a", err: inventory.ErrRef},
		{prefix: "abc", err: inventory.ErrRef},
		{prefix: high + "f", err: inventory.ErrRef},
		{prefix: strings.Repeat("a", 1<<20), err: inventory.ErrRef},
		{prefix: "abcg", err: inventory.ErrRef},
		{prefix: "abcdg", err: inventory.ErrRef},
		{prefix: "0xabcd", err: inventory.ErrRef},
		{prefix: "abcd ", err: inventory.ErrRef},
		{prefix: "äöü", err: inventory.ErrRef},
	} {
		got, err := inv.Resolve(t.Context(), tt.prefix)
		if !errors.Is(err, tt.err) || got.String() != tt.want {
			t.Errorf("Resolve(%.40q) = %v, %v, want %s, %v", tt.prefix, got, err, tt.want, tt.err)
		}
		if tt.err == nil {
			continue
		}
		if _, err := inv.Find(t.Context(), tt.prefix); !errors.Is(err, tt.err) {
			t.Errorf("Find(%.40q) err = %v, want %v", tt.prefix, err, tt.err)
		}
	}
}

func TestResolveTellsAmbiguousPrefixes(t *testing.T) {
	s := &refStore{refs: [][]byte{
		append([]byte{0x12, 0x34, 0x50}, make([]byte, 29)...),
		append([]byte{0x12, 0x34, 0x5F}, make([]byte, 61)...),
		append([]byte{0x12, 0x34, 0x60}, make([]byte, 29)...),
	}}
	inv := inventory.New(inventory.Config{Store: s})
	for prefix, want := range map[string]error{
		"1234": inventory.ErrAmbiguousRef, "12345": inventory.ErrAmbiguousRef,
		"123450": nil, "12345f": nil, "12345F0": nil, "12346": nil, "12347": store.ErrNotFound,
	} {
		if _, err := inv.Resolve(t.Context(), prefix); !errors.Is(err, want) {
			t.Errorf("Resolve(%s) err = %v, want %v", prefix, err, want)
		}
	}
}

func TestResolveFindsWhatWasGenerated(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	var s shown
	for _, id := range []ciphersuite.ID{1, 5, 7} { // 32, 64 and 48 bytes
		if _, err := inv.Generate(t.Context(), request(f.identity(t, id.String(), id), 4), s.take); err != nil {
			t.Fatalf("Generate() err = %v, want nil", err)
		}
	}
	for _, ref := range s.refs {
		text := ref.String()
		for _, prefix := range []string{text, text[:len(text)-1], text[:20], text[:21]} {
			got, err := inv.Resolve(t.Context(), prefix)
			if err != nil || !bytes.Equal(got, ref) {
				t.Errorf("Resolve(%s) = %v, %v, want %v", prefix, got, err, ref)
			}
			record, err := inv.Find(t.Context(), prefix)
			if err != nil || !bytes.Equal(record.Ref, ref) {
				t.Errorf("Find(%s) = %x, %v, want %v", prefix, record.Ref, err, ref)
			}
		}
	}
}

func TestPrivateKeysOfAnUnknownRef(t *testing.T) {
	f := newFixture(t)
	for _, ref := range [][]byte{nil, {}, make([]byte, 32), make([]byte, 1000)} {
		if _, err := f.inventory().PrivateKeys(t.Context(), ref, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("PrivateKeys(%x) err = %v, want %v", ref, err, store.ErrNotFound)
		}
	}
}

// A record whose parts were changed or exchanged in the store cannot be opened.
func TestPrivateKeysOfARecordThatWasChanged(t *testing.T) {
	f := newFixture(t)
	var made []store.KeyPackage
	if _, err := f.inventory().Generate(t.Context(), request(f.identity(t, "alice", suite1), 2), func(batch []store.KeyPackage) error {
		made = append(made, batch...)
		return nil
	}); err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	another := f.addWrappingKey(t)
	for name, change := range map[string]func(*store.KeyPackage){
		"the keys of another":  func(r *store.KeyPackage) { r.Sealed = made[1].Sealed },
		"another suite":        func(r *store.KeyPackage) { r.Suite = 3 },
		"another wrapping key": func(r *store.KeyPackage) { r.WrappingKeyID = another },
		"a bit":                func(r *store.KeyPackage) { r.Sealed = slices.Clone(r.Sealed); r.Sealed[len(r.Sealed)-1] ^= 1 },
		"the public part":      func(r *store.KeyPackage) { r.Public = made[1].Public },
		"nothing left":         func(r *store.KeyPackage) { r.Sealed = nil },
	} {
		changed := made[0]
		change(&changed)
		f.config.Store = oneRecord{f.store, changed}
		if _, err := f.inventory().PrivateKeys(t.Context(), changed.Ref, now); !errors.Is(err, vault.ErrSealed) && !errors.Is(err, inventory.ErrMixedUp) {
			t.Errorf("%s: PrivateKeys() err = %v, want %v or %v", name, err, vault.ErrSealed, inventory.ErrMixedUp)
		}
	}
	unknown := made[0]
	unknown.Suite = 0x0F00
	f.config.Store = oneRecord{f.store, unknown}
	if _, err := f.inventory().PrivateKeys(t.Context(), unknown.Ref, now); err == nil {
		t.Error("PrivateKeys() of an unknown suite err = nil, want one")
	}
}

// oneRecord returns one record for every query.
type oneRecord struct {
	store.Store
	record store.KeyPackage
}

func (s oneRecord) KeyPackage(context.Context, []byte) (store.KeyPackage, error) {
	return s.record, nil
}

// firstFails fails the first time that it opens a key.
type firstFails struct {
	inventory.Ring
	err    error
	opened atomic.Int64
}

func (r *firstFails) Open(ctx context.Context, id vault.KeyID, m vault.Mechanism) (vault.Custodian, error) {
	if r.opened.Add(1) == 1 {
		return nil, r.err
	}
	return r.Ring.Open(ctx, id, m)
}

// A wrapping key is looked up in the token once, and again only if that failed.
func TestAWrappingKeyIsOpenedOnce(t *testing.T) {
	f := newFixture(t)
	gone := errors.New("the token cannot be reached")
	opening := &firstFails{Ring: f.config.Ring, err: gone}
	f.config.Ring = opening
	inv, id := f.inventory(), f.identity(t, "alice", suite1)
	var s shown
	if n, err := inv.Generate(t.Context(), request(id, 8), s.take); n != 0 || !errors.Is(err, gone) {
		t.Errorf("Generate() without a token = %d, %v, want 0 and %v", n, err, gone)
	}
	if _, err := inv.Generate(t.Context(), request(id, 8), s.take); err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	var users sync.WaitGroup
	for _, ref := range s.refs {
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
	if opening.opened.Load() != 2 {
		t.Errorf("the wrapping key was opened %d times, want twice: once in vain", opening.opened.Load())
	}
}
