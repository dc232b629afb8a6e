package inventory_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"database/sql"
	"io"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
	"github.com/hsm-kp/hsm-kp/vault"
)

// now is the time of every request.
var now = time.Unix(1_800_000_000, 0)

// fixture is a token, a store and what an inventory needs of both. Tests change its config before
// they call inventory.
type fixture struct {
	token  *token.Token
	path   string // path of the store
	store  *sqlite.Store
	config inventory.Config
	// custody is the custody of the key packages that makeOne makes.
	custody string
	// seals is how wrapping keys seal; the default is AES-GCM.
	seals vault.Mechanism
}

// sealing returns how wrapping keys seal.
func (f *fixture) sealing() vault.Mechanism {
	if f.seals == "" {
		return vault.AESGCM
	}
	return f.seals
}

// mechanism returns the mechanism of the wrapping keys of the fixture's custody.
func (f *fixture) mechanism() vault.Mechanism {
	if f.custody == vault.CustodyToken {
		return vault.AESKeyWrap
	}
	return f.sealing()
}

// inEachCustody runs a test with the private keys sealed by either mechanism, and with them in the
// token. The test gets the suites that the custody serves.
func inEachCustody(t *testing.T, test func(*testing.T, *fixture, []*ciphersuite.Suite)) {
	all := []ciphersuite.ID{1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		name, custody string
		open          func(testing.TB) *token.Token // nil for openToken
		keys          []vault.Mechanism
		suites        []ciphersuite.ID
	}{
		{"wrapped", vault.CustodyWrapped, nil, []vault.Mechanism{vault.AESGCM, vault.AESKeyWrap}, all},
		{"wrapped by RSA-OAEP", vault.CustodyWrapped, nil, []vault.Mechanism{vault.RSAOAEP, vault.AESKeyWrap}, all},
		{"wrapped by RSA-OAEP on a TPM", vault.CustodyWrapped, vendortest.OpenTPM, []vault.Mechanism{vault.RSAOAEP}, []ciphersuite.ID{2, 7}},
		{"wrapped by RSA-OAEP behind p11-kit", vault.CustodyWrapped, behindP11Kit, []vault.Mechanism{vault.RSAOAEP}, []ciphersuite.ID{2, 5, 7}},
		{"token", vault.CustodyToken, nil, []vault.Mechanism{vault.AESGCM, vault.AESKeyWrap}, []ciphersuite.ID{2, 5, 7}},
	} {
		if c.open == nil {
			c.open = openToken
		} else if onlyNSS {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			f := newBareFixtureOn(t, c.open(t))
			f.seals, f.custody = c.keys[0], c.custody
			for _, m := range c.keys {
				f.addWrappingKeyBy(t, m)
			}
			var suites []*ciphersuite.Suite
			for _, id := range served(c.suites) {
				suites = append(suites, suite(t, id))
			}
			test(t, f, suites)
		})
	}
}

func behindP11Kit(tb testing.TB) *token.Token {
	return vendortest.OpenP11Kit(tb, softhsmtest.Config(tb))
}

// newFixture returns a fixture with a current wrapping key.
func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	f := newBareFixture(tb)
	f.addWrappingKey(tb)
	return f
}

// newBareFixture returns a fixture with an empty store.
func newBareFixture(tb testing.TB) *fixture {
	tb.Helper()
	return newBareFixtureOn(tb, openToken(tb))
}

func newBareFixtureOn(tb testing.TB, tok *token.Token) *fixture {
	tb.Helper()
	f := &fixture{token: tok, path: filepath.Join(tb.TempDir(), "store.db")}
	f.store = openStore(tb, f.path)
	f.config = inventory.Config{
		Store:   f.store,
		Ring:    ring{f.token},
		Rand:    rand.Reader,
		Workers: 4,
		Batch:   5,
	}
	return f
}

func openStore(tb testing.TB, path string) *sqlite.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), path, sqlite.Options{Create: true})
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	})
	return s
}

// ring implements Ring with a token.
type ring struct{ token *token.Token }

func (r ring) Open(ctx context.Context, id vault.KeyID, m vault.Mechanism) (vault.Custodian, error) {
	return vault.OpenBy(ctx, r.token, m, id)
}

func (r ring) Create(ctx context.Context, id vault.KeyID, m vault.Mechanism, label string) ([]byte, error) {
	return vault.CreateBy(ctx, r.token, rand.Reader, m, id, label)
}

func (r ring) Destroy(ctx context.Context, o store.Object, id []byte) error {
	classes := []token.ObjectClass{token.ClassSecretKey, token.ClassPrivateKey, token.ClassPublicKey}
	_, err := r.token.DestroyByID(ctx, id, classes...)
	if err == nil && o == store.ObjectSealingPair {
		_, err = r.token.DestroyByID(ctx, vault.StampingKeyID(id), classes...)
	}
	return err
}

func (r ring) Discard(ctx context.Context, id vault.KeyID, label string) error {
	return r.token.DiscardUnfinished(ctx, id, label)
}

func (r ring) Serial() string { return r.token.Info().Serial }

// addWrappingKey makes a wrapping key and makes it the current one for sealing.
func (f *fixture) addWrappingKey(tb testing.TB) vault.KeyID {
	tb.Helper()
	return f.addWrappingKeyBy(tb, f.sealing())
}

func (f *fixture) addWrappingKeyBy(tb testing.TB, m vault.Mechanism) vault.KeyID {
	tb.Helper()
	key, err := f.inventory().CreateWrappingKey(tb.Context(), m, true, now)
	if err != nil {
		tb.Fatal(err)
	}
	return key.ID
}

func (f *fixture) inventory() *inventory.Inventory { return inventory.New(f.config) }

// again opens the store once more, as another process would, and returns an
// inventory over it.
func (f *fixture) again(tb testing.TB) *inventory.Inventory {
	tb.Helper()
	c := f.config
	c.Store = openStore(tb, f.path)
	return inventory.New(c)
}

// identity makes an identity whose key is in the token.
func (f *fixture) identity(tb testing.TB, name string, id ciphersuite.ID) *identity.Identity {
	tb.Helper()
	key, err := signer.Generate(tb.Context(), f.token, suite(tb, id).Signature, nil, name)
	if err != nil {
		tb.Fatal(err)
	}
	return f.identityOf(tb, name, id, key)
}

// identityOf makes an identity that signs with key.
func (f *fixture) identityOf(tb testing.TB, name string, id ciphersuite.ID, key crypto.Signer) *identity.Identity {
	tb.Helper()
	_, public, err := ciphersuite.MarshalPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	credential := keypackage.BasicCredential([]byte(name))
	made, err := identity.New(name, suite(tb, id), credential, public, key)
	if err != nil {
		tb.Fatal(err)
	}
	record := store.Identity{Name: name, Suite: uint16(id), Credential: []byte(name), SignatureKey: public, KeyID: []byte(name), CreatedAt: now}
	if err := f.store.AddIdentity(tb.Context(), record); err != nil {
		tb.Fatal(err)
	}
	return made
}

func suite(tb testing.TB, id ciphersuite.ID) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(id)
	if !ok {
		tb.Fatalf("Lookup(%d) found nothing", id)
	}
	return s
}

// request returns a request for count key packages of id.
func request(id *identity.Identity, count uint64) inventory.Request {
	return inventory.Request{
		Identity: id,
		Policy:   identity.Policy{Lifetime: 84 * 24 * time.Hour, Backdate: time.Hour},
		Count:    count,
		Now:      now,
	}
}

// shown collects the key packages that a caller of Generate gets.
type shown struct {
	refs     []keypackage.Ref
	initKeys [][]byte
	batches  []int
}

// take is a callback for Generate. It copies the batch, which Generate reuses.
func (s *shown) take(batch []store.KeyPackage) error {
	s.batches = append(s.batches, len(batch))
	for i := range batch {
		kp, err := keypackage.Parse(batch[i].Public)
		if err != nil {
			return err
		}
		s.refs = append(s.refs, bytes.Clone(batch[i].Ref))
		s.initKeys = append(s.initKeys, kp.InitKey)
	}
	return nil
}

// exec changes the store behind the program's back.
func (f *fixture) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+f.path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatal(err)
	}
}

// records returns all key packages in the store, read by another handle.
func (f *fixture) records(tb testing.TB) []store.KeyPackage {
	tb.Helper()
	var all []store.KeyPackage
	for k, err := range openStore(tb, f.path).KeyPackages(tb.Context(), store.Filter{}) {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

// checkUnsealable unseals the private keys of a record and compares them with its public keys.
func checkUnsealable(tb testing.TB, inv *inventory.Inventory, record *store.KeyPackage) {
	tb.Helper()
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		tb.Fatalf("Parse() err = %v, want nil", err)
	}
	keys, err := inv.PrivateKeys(tb.Context(), record.Ref, now)
	if err != nil {
		tb.Fatalf("PrivateKeys() err = %v, want nil", err)
	}
	defer keys.Clear()
	if !bytes.Equal(keys.Init.PublicKey(), kp.InitKey) {
		tb.Errorf("the sealed init key of %x has another public key than the key package", record.Ref)
	}
	if !bytes.Equal(keys.Encryption.PublicKey(), kp.LeafNode.EncryptionKey) {
		tb.Errorf("the sealed encryption key of %x has another public key than the key package", record.Ref)
	}
}

// checkShownIsStored checks that what was shown is what the store has, each once, and that all of
// it is usable.
func (f *fixture) checkShownIsStored(tb testing.TB, s *shown) {
	tb.Helper()
	inv := f.again(tb)
	stored := make(map[string]bool)
	for _, record := range f.records(tb) {
		stored[string(record.Ref)] = true
		checkUnsealable(tb, inv, &record)
	}
	if len(stored) != len(s.refs) {
		tb.Errorf("%d key packages are stored and %d were shown, want the same", len(stored), len(s.refs))
	}
	seen := make(map[string]bool)
	for i, ref := range s.refs {
		if !stored[string(ref)] {
			tb.Errorf("%v was shown and is not stored", ref)
		}
		if seen[string(ref)] || seen[string(s.initKeys[i])] {
			tb.Errorf("%v was shown twice, or its init key", ref)
		}
		seen[string(ref)], seen[string(s.initKeys[i])] = true, true
	}
}

// checkNoGoroutineIsLeft waits until the number of goroutines is base again.
func checkNoGoroutineIsLeft(tb testing.TB, base int) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > base; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			tb.Fatalf("%d goroutines, want %d as before\n%s", runtime.NumGoroutine(), base, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// countingReader counts how often it is read.
type countingReader struct {
	io.Reader
	reads atomic.Int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	r.reads.Add(1)
	return r.Reader.Read(b)
}

// tampered is a signer that passes its signatures through change, with the number of the signature,
// from 1.
type tampered struct {
	crypto.Signer
	made   atomic.Int64
	change func(n int64, signature []byte) ([]byte, error)
}

func (s *tampered) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(rand, digest, opts)
	if err != nil {
		return nil, err
	}
	return s.change(s.made.Add(1), signature)
}
