package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Rest is an installation at rest: nothing runs, and nothing is left to repair.
type Rest struct {
	// Faults are the faults of the objects in the token, of private keys and of the trail.
	Faults []error
	// Halves is how many objects SoftHSM was making when it was killed: see half.
	Halves int
}

// Rest examines the installation, and calls more while it is open.
func (i *Installation) Rest(more ...func(*Opened) []error) (r Rest) {
	err := i.Open(func(o *Opened) {
		r.Faults, r.Halves = o.ObjectFaults()
		r.Faults = append(r.Faults, o.keyFaults()...)
		r.Faults = append(r.Faults, o.trailFaults()...)
		for _, f := range more {
			r.Faults = append(r.Faults, f(o)...)
		}
	})
	if err != nil {
		r.Faults = append(r.Faults, err)
	}
	return r
}

// CheckRest fails the test if the installation has faults or a half-made object.
func (i *Installation) CheckRest(t testing.TB) {
	t.Helper()
	r := i.Rest()
	for _, err := range r.Faults {
		t.Error(err)
	}
	if r.Halves > 0 {
		t.Errorf("the token has %d objects that are half made", r.Halves)
	}
}

// object is an object of the token as the store expects it.
type object struct {
	class token.ObjectClass
	id    string
}

// uses is what a secret key may be used for, by its purpose.
var uses = map[store.Purpose]string{store.Seal: "encrypt decrypt", store.Wrap: "wrap unwrap"}

// expected returns the objects that the token has according to the store, and what each is used
// for.
func (o *Opened) expected() (map[object]string, error) {
	ctx := context.Background()
	all := make(map[object]string)
	pair := func(id []byte) {
		all[object{token.ClassPrivateKey, string(id)}] = "sign"
		all[object{token.ClassPublicKey, string(id)}] = ""
	}
	keys, err := o.Store.WrappingKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		m, err := inventory.MechanismOf(&k)
		switch {
		case !k.DestroyedAt.IsZero():
		case err != nil:
			return nil, err
		case m == vault.RSAOAEP:
			all[object{token.ClassPrivateKey, string(k.ID)}] = "decrypt"
			all[object{token.ClassPublicKey, string(k.ID)}] = ""
			pair(vault.StampingKeyID(k.ID))
		default:
			all[object{token.ClassSecretKey, string(k.ID)}] = uses[k.Purpose]
		}
	}
	identities, err := o.Store.Identities(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range identities {
		versions, err := o.Store.Versions(ctx, id.Name)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if v.DestroyedAt.IsZero() {
				pair(v.KeyID)
			}
		}
	}
	auditKeys, err := o.Store.AuditKeys(ctx)
	for _, k := range auditKeys {
		pair(k.KeyID)
	}
	return all, err
}

// ObjectFaults compares the token's own list of objects with what the store expects, and returns
// how many are half made. These include session objects of this process, except copies of keys.
func (o *Opened) ObjectFaults() (faults []error, halves int) {
	want, err := o.expected()
	if err != nil {
		return []error{err}, 0
	}
	have, err := o.Token.Objects(context.Background())
	if err != nil {
		return []error{err}, 0
	}
	known := maps.Clone(want)
	for _, info := range have {
		if half(&info) {
			halves++
			continue
		}
		key := object{info.Class, string(info.ID)}
		if _, ok := known[key]; ok && isCopy(&info) {
			continue
		}
		use, ok := want[key]
		if !ok {
			text, _ := json.Marshal(info)
			faults = append(faults, fmt.Errorf("the token has an object that the store knows nothing of, or twice: %s", text))
			continue
		}
		delete(want, key)
		if bad := keptBadly(&info, use); len(bad) > 0 {
			faults = append(faults, fmt.Errorf("%v %x: %v", info.Class, info.ID, bad))
		}
	}
	for key := range want {
		faults = append(faults, fmt.Errorf("the token has no %v %x, which the store knows", key.class, key.id))
	}
	return faults, halves
}

// isCopy reports whether an object is a session copy of a key (C_CopyObject), kept like its key.
func isCopy(info *token.ObjectInfo) bool {
	a := info.Attributes
	return len(token.Broken(
		token.AttributeRule{Name: "CKA_TOKEN", Value: a.Token, Required: true},
		token.AttributeRule{Name: "CKA_SENSITIVE", Value: a.Sensitive, Want: true, Required: true},
		token.AttributeRule{Name: "CKA_EXTRACTABLE", Value: a.Extractable, Required: true},
	)) == 0
}

// half reports whether SoftHSM 2.6.1 was killed while it made an object. It writes the file of a
// new object once for each attribute, with the defaults first: CKA_TOKEN is false, and there is no
// CKA_ID. Then it writes all requested attributes at once, including CKA_ID, and then the key at
// once, with CKA_LOCAL. So such an object has no key yet, and if it is not a session object of this
// process, it belongs to nobody. It looks like an object that another process is making, so hsm-kp
// leaves it alone.
func half(info *token.ObjectInfo) bool {
	is := func(b *bool) bool { return b != nil && *b }
	return len(info.ID) == 0 && info.Label == "" && !is(info.Attributes.Token) && !is(info.Attributes.Local)
}

// keptBadly returns the attributes of an object that are not as they should be.
func keptBadly(info *token.ObjectInfo, use string) []string {
	a := info.Attributes
	if info.Class == token.ClassPublicKey {
		return token.Broken(token.AttributeRule{Name: "CKA_TOKEN", Value: a.Token, Want: true, Required: true})
	}
	rules := a.Custody()
	for _, u := range []struct {
		name  string
		value *bool
		told  bool
	}{
		{"encrypt", a.Encrypt, info.Class == token.ClassSecretKey}, {"decrypt", a.Decrypt, true}, {"sign", a.Sign, true},
		{"wrap", a.Wrap, info.Class == token.ClassSecretKey}, {"unwrap", a.Unwrap, true}, {"derive", a.Derive, true},
	} {
		rules = append(rules, token.AttributeRule{Name: u.name, Value: u.value, Want: slices.Contains(strings.Fields(use), u.name), Required: u.told})
	}
	return token.Broken(rules...)
}

// keyFaults uses the private keys of every key package that should have them, and looks for keys
// where there should be none.
func (o *Opened) keyFaults() (faults []error) {
	ctx := context.Background()
	records := make(map[string]store.WrappingKey)
	keys, err := o.Store.WrappingKeys(ctx)
	if err != nil {
		return []error{err}
	}
	for _, k := range keys {
		records[string(k.ID)] = k
	}
	custodians := make(map[string]vault.Custodian)
	for record, err := range o.Store.KeyPackages(ctx, store.Filter{}) {
		if err != nil {
			return append(faults, err)
		}
		key := string(record.WrappingKeyID)
		if (len(record.Sealed) > 0 || len(record.Leaf) > 0) && custodians[key] == nil {
			if custodians[key], err = o.custodian(ctx, records[key]); err != nil {
				return append(faults, fmt.Errorf("key package %x is %s: %w", record.Ref, record.State, err))
			}
		}
		if err := useKeys(ctx, custodians[key], &record); err != nil {
			faults = append(faults, fmt.Errorf("key package %x is %s: %w", record.Ref, record.State, err))
		}
	}
	return faults
}

// custodian opens a wrapping key.
func (o *Opened) custodian(ctx context.Context, k store.WrappingKey) (vault.Custodian, error) {
	m, err := inventory.MechanismOf(&k)
	if err != nil {
		return nil, err
	}
	c, err := vault.OpenBy(ctx, o.Token, m, k.ID)
	if err != nil {
		return nil, err
	}
	return c, c.Recognize(ctx, k.Stamp)
}

// useKeys encrypts to both public keys of a key package and decrypts the result.
func useKeys(ctx context.Context, v vault.Custodian, record *store.KeyPackage) error {
	if open := record.State.Open() && record.ConfirmedAt.IsZero(); open != (len(record.Sealed) > 0) {
		return fmt.Errorf("it has %d bytes of private keys", len(record.Sealed))
	}
	if record.State == store.Erased && len(record.Leaf) > 0 {
		return errors.New("it has a private key of its leaf")
	}
	kp, err := inventory.Public(record)
	if err != nil {
		return err
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	b := vault.Binding{Ref: record.Ref, Suite: suite, InitKey: kp.InitKey, EncryptionKey: kp.LeafNode.EncryptionKey, Release: record.ReleaseDigest}
	if len(record.Leaf) > 0 {
		k, err := v.Leaf(ctx, b, record.Leaf)
		if err != nil {
			return err
		}
		defer k.Clear()
		if err := useKey(suite, k.Encryption, b.EncryptionKey); err != nil {
			return err
		}
	}
	if len(record.Sealed) == 0 {
		return nil
	}
	k, err := v.Keys(ctx, b, record.Sealed)
	if err != nil {
		return err
	}
	defer k.Clear()
	return errors.Join(useKey(suite, k.Init, b.InitKey), useKey(suite, k.Encryption, b.EncryptionKey))
}

func useKey(suite *ciphersuite.Suite, private hpke.PrivateKey, public []byte) error {
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(suite, public, "test", nil, []byte("to be read"))
	if err != nil {
		return err
	}
	plaintext, err := hpke.DecryptWithLabel(private, "test", nil, kemOutput, ciphertext)
	if err == nil && string(plaintext) != "to be read" {
		err = fmt.Errorf("it decrypts to %q", plaintext)
	}
	return err
}
