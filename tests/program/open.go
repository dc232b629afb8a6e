package program

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/sqlite"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Copy copies the installation as it is. SoftHSM and the config know absolute paths,
// which are changed.
func (i *Installation) Copy(t testing.TB) *Installation {
	t.Helper()
	c := &Installation{t: t, bin: i.bin, Dir: filepath.Join(t.TempDir(), "kp")}
	i.CopyTo(t, c.Dir)
	return c
}

// CopyTo copies what the installation keeps to a folder that is not there yet.
func (i *Installation) CopyTo(t testing.TB, dir string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", i.Dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the installation: %v: %s", err, out)
	}
	for _, name := range []string{"hsm-kp.yaml", "softhsm2.conf"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte(i.Dir), []byte(dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Edit replaces a text in the config.
func (i *Installation) Edit(before, after string) {
	i.t.Helper()
	path := filepath.Join(i.Dir, "hsm-kp.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		i.t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte(before), []byte(after), 1)
	if bytes.Equal(changed, text) {
		i.t.Fatalf("the config has no %q", before)
	}
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		i.t.Fatal(err)
	}
}

// Opened is an installation that the test itself has open.
type Opened struct {
	Store     *sqlite.Store
	Token     *token.Token
	Inventory *inventory.Inventory
}

// oneSoftHSM is held while this process has a SoftHSM open: SoftHSM knows one
// configuration at a time.
var oneSoftHSM sync.Mutex

// Open opens store and token in this process and calls f. Only one installation is open
// at a time.
func (i *Installation) Open(f func(*Opened)) error {
	oneSoftHSM.Lock()
	defer oneSoftHSM.Unlock()
	s, err := softhsm.Load(i.Dir)
	if err == nil {
		err = s.Setenv()
	}
	if err != nil {
		return err
	}
	ctx := context.Background()
	t, err := token.Open(ctx, s.Config())
	if err != nil {
		return fmt.Errorf("open token: %w", err)
	}
	defer t.Close()
	db, err := sqlite.Open(ctx, filepath.Join(i.Dir, "hsm-kp.db"), sqlite.Options{})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	inv := inventory.New(inventory.Config{Store: db, Ring: ring{t}, Rand: rand.Reader, Workers: 8, Batch: 100})
	f(&Opened{db, t, inv})
	return db.Close()
}

// ring is a token as the inventory knows it.
type ring struct{ token *token.Token }

func (r ring) Open(ctx context.Context, id vault.KeyID, p store.Purpose) (vault.Custodian, error) {
	if p == store.Wrap {
		return vault.OpenToken(ctx, r.token, id)
	}
	return vault.Open(ctx, r.token, id)
}

func (r ring) Create(context.Context, vault.KeyID, store.Purpose, string) ([]byte, error) {
	return nil, errors.New("a test makes no keys")
}

func (r ring) Destroy(context.Context, store.Object, []byte) error {
	return errors.New("a test destroys no keys")
}

func (r ring) Serial() string { return r.token.Info().Serial }

// Rest is an installation at rest: nothing runs, and nothing is left to repair.
type Rest struct {
	// Faults are what is wrong with the objects in the token, with private keys and
	// with the trail.
	Faults []error
	// Halves is how many objects SoftHSM was killed in the making of: see half.
	Halves int
}

// Rest looks at the installation, and calls more while it is open.
func (i *Installation) Rest(more ...func(*Opened) []error) (r Rest) {
	err := i.Open(func(o *Opened) {
		r.Faults, r.Halves = o.objectFaults()
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

// CheckRest fails the test where the installation has faults, or an object that is half
// made.
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

// uses are what a secret key may be for, by its purpose.
var uses = map[store.Purpose]string{store.Seal: "encrypt decrypt", store.Wrap: "wrap unwrap"}

// expected is what the store says that the token has: for each object, what it is for.
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
		if k.DestroyedAt.IsZero() {
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

// objectFaults compares the token's own list of objects with what the store expects.
func (o *Opened) objectFaults() (faults []error, halves int) {
	want, err := o.expected()
	if err != nil {
		return []error{err}, 0
	}
	have, err := o.Token.Objects(context.Background())
	if err != nil {
		return []error{err}, 0
	}
	for _, info := range have {
		if half(&info) {
			halves++
			continue
		}
		key := object{info.Class, string(info.ID)}
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

// half reports an object that SoftHSM 2.6.1 was killed in the making of. It writes the
// file of a new object once for each attribute, with the defaults first: CKA_TOKEN is
// false, and there is no CKA_ID. Then it writes what it was asked for at once, CKA_ID
// with it, and then the key at once, CKA_LOCAL with it. So such an object has no key yet,
// and what is no session object of this process is nobody's. It cannot be told from one
// that another process is in the making of: hsm-kp leaves it alone.
func half(info *token.ObjectInfo) bool {
	is := func(b *bool) bool { return b != nil && *b }
	return len(info.ID) == 0 && info.Label == "" && !is(info.Attributes.Token) && !is(info.Attributes.Local)
}

// keptBadly says what of an object's attributes is not as it should be.
func keptBadly(info *token.ObjectInfo, use string) []string {
	a := info.Attributes
	if info.Class == token.ClassPublicKey {
		return token.Broken(token.AttributeRule{Name: "CKA_TOKEN", Value: a.Token, Want: true, MustBeTold: true})
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
		rules = append(rules, token.AttributeRule{Name: u.name, Value: u.value, Want: slices.Contains(strings.Fields(use), u.name), MustBeTold: u.told})
	}
	return token.Broken(rules...)
}

// keyFaults uses the private keys of every key package that is to have some, and looks
// for some where none are to be.
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
			if custodians[key], err = (ring{o.Token}).Open(ctx, record.WrappingKeyID, records[key].Purpose); err != nil {
				return append(faults, fmt.Errorf("key package %x is %s: %w", record.Ref, record.State, err))
			}
		}
		if err := useKeys(ctx, custodians[key], &record); err != nil {
			faults = append(faults, fmt.Errorf("key package %x is %s: %w", record.Ref, record.State, err))
		}
	}
	return faults
}

// useKeys encrypts to both public keys of a key package and decrypts it again.
func useKeys(ctx context.Context, v vault.Custodian, record *store.KeyPackage) error {
	if open := record.State.Open(); open != (len(record.Sealed) > 0) {
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
	b := vault.Binding{Ref: record.Ref, Suite: suite, InitKey: kp.InitKey, EncryptionKey: kp.LeafNode.EncryptionKey}
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

// life is the state of a key package as the trail tells it.
type life struct{ state, before store.State } // before: it was reserved

var led = map[audit.Act]store.State{
	audit.Exported: store.Published, audit.Claimed: store.Claimed, audit.Consumed: store.Consumed,
	audit.Retired: store.Retired, audit.Expired: store.Expired, audit.Erased: store.Erased,
}

func (l *life) follow(e audit.Entry) {
	next, ok := led[e.Act]
	switch {
	case e.Act == audit.Reserved && l.state != store.Reserved:
		l.state, l.before = store.Reserved, l.state
	case e.Act == audit.Released, e.Act == audit.Consumed && strings.HasSuffix(e.Detail, "last resort"):
		l.state = l.before
	case !ok:
	case l.state == store.Reserved && (next == store.Published || next == store.Retired):
		l.before = next // what it was reserved from
	case next == store.Published && (l.state == store.Retired || !l.state.Open()):
		// It was published, and fast: see store.Move.
	default:
		l.state = next
	}
}

// trailFaults verifies the trail and follows each key package through it.
func (o *Opened) trailFaults() (faults []error) {
	ctx := context.Background()
	if _, err := audit.Verify(o.Store.Entries(ctx, 0), nil); err != nil {
		faults = append(faults, fmt.Errorf("the audit trail: %w", err))
	}
	lives := make(map[string]*life)
	under := make(map[string][]byte)
	for stored, err := range o.Store.Entries(ctx, 0) {
		if err != nil {
			return append(faults, err)
		}
		e, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			return append(faults, err)
		}
		if len(e.Ref) == 0 {
			continue
		}
		l := lives[string(e.Ref)]
		if (l == nil) != (e.Act == audit.Generated) {
			faults = append(faults, fmt.Errorf("key package %x: entry %d is %s", e.Ref, e.Sequence, e.Act))
			continue
		}
		if l == nil {
			l = &life{state: store.Available}
			lives[string(e.Ref)] = l
		}
		l.follow(e)
		if e.Act == audit.Generated || e.Act == audit.Rewrapped {
			under[string(e.Ref)] = e.KeyID
		}
	}
	for record, err := range o.Store.KeyPackages(ctx, store.Filter{}) {
		if err != nil {
			return append(faults, err)
		}
		l, state := lives[string(record.Ref)], record.State
		if l == nil {
			faults = append(faults, fmt.Errorf("key package %x is not in the trail", record.Ref))
			continue
		}
		if state == store.Pending { // no act
			state = store.Available
		}
		if l.state == store.Published && record.State == store.Pending { // written again
			continue
		}
		if l.state != state {
			faults = append(faults, fmt.Errorf("key package %x is %s, and by the trail it is %s", record.Ref, record.State, l.state))
		}
		if !bytes.Equal(under[string(record.Ref)], record.WrappingKeyID) {
			faults = append(faults, fmt.Errorf("key package %x is under %x, and by the trail under %x", record.Ref, record.WrappingKeyID, under[string(record.Ref)]))
		}
		delete(lives, string(record.Ref))
	}
	for ref := range lives {
		faults = append(faults, fmt.Errorf("key package %x is in the trail and not in the store", ref))
	}
	return faults
}
