package inventory_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
	"github.com/hsm-kp/hsm-kp/vault"
)

// every makes each function fail with each code at each of three calls of a batch of 500, instead
// of a part of them in a batch of 60.
var every = flag.Bool("every", false, "have every function fail with every code, in batches of 500")

// goneCodes are the return values of modules that have lost something.
var goneCodes = []token.RV{
	token.CKR_SESSION_HANDLE_INVALID, token.CKR_SESSION_CLOSED, token.CKR_OBJECT_HANDLE_INVALID, token.CKR_USER_NOT_LOGGED_IN,
	token.CKR_DEVICE_REMOVED, token.CKR_DEVICE_ERROR, token.CKR_TOKEN_NOT_PRESENT, token.CKR_CRYPTOKI_NOT_INITIALIZED,
	token.CKR_OPERATION_ACTIVE, token.CKR_SESSION_COUNT,
}

// faulty is a token behind a module that fails on purpose, with a fresh store for each batch.
type faulty struct {
	*tokentest.Module
	cfg      token.Config
	template string // of the store, with an identity and wrapping keys
	keyID    []byte // of the signature key
	custody  string
	count    uint64
}

func newFaulty(t *testing.T, custody string) *faulty {
	t.Helper()
	cfg := softhsmtest.Config(t)
	f := &faulty{Module: tokentest.New(t, cfg.Module), custody: custody, count: 60}
	if *every {
		f.count = 500
	}
	f.cfg = f.Config(cfg)
	f.cfg.Sessions, f.cfg.Patience = 4, 10*time.Second
	f.template = filepath.Join(t.TempDir(), "template.db")

	tok, err := token.Open(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	s, err := sqlite.Open(t.Context(), f.template, sqlite.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	fix := &fixture{token: tok, path: f.template, store: s, config: f.config(s, tok)}
	fix.addWrappingKeyBy(t, vault.AESGCM)
	fix.addWrappingKeyBy(t, vault.AESKeyWrap)
	key, err := signer.Generate(t.Context(), tok, suite(t, 2).Signature, nil, "alice")
	if err != nil {
		t.Fatal(err)
	}
	fix.identityOf(t, "alice", 2, key)
	f.keyID = key.ID()
	if _, err := signer.Generate(t.Context(), tok, suite(t, 2).Signature, nil, "somebody else's"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *faulty) config(s store.Store, tok *token.Token) inventory.Config {
	return inventory.Config{Store: s, Ring: ring{tok}, Rand: rand.Reader, Workers: 6, Batch: 50}
}

// copied returns a copy of the template.
func (f *faulty) copied(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(f.template)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// generate runs like a command: it opens the token and the store, makes key packages, and closes
// both.
func (f *faulty) generate(t *testing.T, path string, count uint64, seen *shown) (err error) {
	t.Helper()
	tok, err := token.Open(t.Context(), f.cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tok.Close()) }()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key, err := signer.Find(t.Context(), tok, token.KeyQuery{ID: f.keyID})
	if err != nil {
		return err
	}
	id, err := identity.New("alice", suite(t, 2), keypackage.BasicCredential([]byte("alice")), key.PublicKey(), key)
	if err != nil {
		t.Fatal(err)
	}
	r := request(id, count)
	r.Custody = f.custody
	_, err = inventory.New(f.config(s, tok)).Generate(t.Context(), r, seen.take)
	return err
}

// check checks that what was shown is what the store has, each once, that all of it opens, and that
// nothing is left over.
func (f *faulty) check(t *testing.T, path string, seen *shown) {
	t.Helper()
	if n := f.Sessions(); n != 0 {
		t.Errorf("%d sessions are open after the end, want none", n)
	}
	f.Reset()
	tok, err := token.Open(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	custodians := make(map[string]vault.Custodian)
	stored := make(map[string]bool)
	for record, err := range s.KeyPackages(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		stored[string(record.Ref)] = true
		if f.custody == vault.CustodyToken && len(stored)%25 != 1 {
			continue // only a part of them, as it takes long
		}
		v, ok := custodians[string(record.WrappingKeyID)]
		if !ok {
			mechanism := vault.AESGCM
			if f.custody == vault.CustodyToken {
				mechanism = vault.AESKeyWrap
			}
			if v, err = (ring{tok}).Open(t.Context(), record.WrappingKeyID, mechanism); err != nil {
				t.Fatal(err)
			}
			custodians[string(record.WrappingKeyID)] = v
		}
		checkOpens(t, v, &record)
	}
	for _, ref := range seen.refs {
		if !stored[string(ref)] {
			t.Errorf("%v was shown and is not stored", ref)
		}
	}
	distinct := slices.CompactFunc(slices.SortedFunc(slices.Values(seen.refs), func(a, b keypackage.Ref) int { return bytes.Compare(a, b) }),
		func(a, b keypackage.Ref) bool { return bytes.Equal(a, b) })
	if len(distinct) != int(f.count) || len(seen.refs) != int(f.count) || len(stored) != int(f.count) {
		t.Errorf("%d key packages were shown, %d of them different, and %d are stored, want %d", len(seen.refs), len(distinct), len(stored), f.count)
	}
}

// checkOpens encrypts something to the init key, decrypts it with the stored private key, and
// verifies the key package.
func checkOpens(t *testing.T, v vault.Custodian, record *store.KeyPackage) {
	t.Helper()
	kp, err := inventory.Public(record)
	if err != nil {
		t.Fatal(err)
	}
	if report := keypackage.Validate(kp, keypackage.Policy{Now: uint64(now.Unix())}); !report.OK() {
		t.Errorf("%x: %v", record.Ref, report.Findings)
	}
	s := suite(t, kp.CipherSuite)
	keys, err := v.Keys(t.Context(), vault.Binding{Ref: record.Ref, Suite: s, InitKey: kp.InitKey, EncryptionKey: kp.LeafNode.EncryptionKey}, record.Sealed)
	if err != nil {
		t.Errorf("Keys() of %x err = %v, want nil", record.Ref, err)
		return
	}
	defer keys.Clear()
	for private, public := range map[hpke.PrivateKey][]byte{keys.Init: kp.InitKey, keys.Encryption: kp.LeafNode.EncryptionKey} {
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, public, "Welcome", nil, []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := hpke.DecryptWithLabel(private, "Welcome", nil, kemOutput, ciphertext); err != nil || string(text) != "secret" {
			t.Errorf("%x does not open what was encrypted to it: %v", record.Ref, err)
		}
	}
}

// TestABatchSurvivesEveryFault makes every function fail with every code at the first, the middle
// and the last of its calls in a batch. Each key package must be made exactly once: in the batch
// or, if that fails with an error of the token, in a second one.
func TestABatchSurvivesEveryFault(t *testing.T) {
	for _, custody := range []string{vault.CustodyWrapped, vault.CustodyToken} {
		t.Run(custody, func(t *testing.T) {
			f := newFaulty(t, custody)
			f.Reset()
			path, undisturbed := f.copied(t), &shown{}
			if err := f.generate(t, path, f.count, undisturbed); err != nil {
				t.Fatal(err)
			}
			calls := f.AllCalls()
			f.check(t, path, undisturbed)
			base := runtime.NumGoroutine()
			n, done, ended := 0, 0, 0
			for _, function := range tokentest.Functions() {
				for i, code := range goneCodes {
					for j, k := range []int{1, calls[function] / 2, calls[function]} {
						if k == 0 || j > 0 && k == 1 || !*every && (n+i+j)%7 != 0 {
							n++
							continue
						}
						n++
						done++
						if !f.disturbed(t, fault{function, k, code}) {
							ended++
						}
					}
				}
			}
			checkNoGoroutineIsLeft(t, base)
			t.Logf("%d of %d faults; %d times the batch ended and a second one made the rest", done, n, ended)
		})
	}
}

// fault is a call that fails.
type fault struct {
	function string
	k        int
	code     token.RV
}

// disturbed makes a batch with a fault in it, and reports whether it was completed.
func (f *faulty) disturbed(t *testing.T, at fault) (whole bool) {
	t.Helper()
	name := fmt.Sprintf("%v at call %d of %s", at.code.Name(), at.k, at.function)
	f.Reset()
	f.Fail(t, at.function, at.k, 1, at.code)
	path, seen := f.copied(t), &shown{}
	err := f.generate(t, path, f.count, seen)
	f.Reset()
	if err != nil {
		// A slot without its token is skipped, and then no slot is left.
		if !errors.Is(err, at.code) && !errors.Is(err, token.ErrNoToken) {
			t.Errorf("%s: err = %v, want nil or the token's", name, err)
		}
		if err := f.generate(t, path, f.count-uint64(len(seen.refs)), seen); err != nil && len(seen.refs) < int(f.count) {
			t.Errorf("%s: a later run err = %v, want nil", name, err)
		}
	}
	f.check(t, path, seen)
	if t.Failed() {
		t.Fatalf("%s: see above", name)
	}
	return err == nil
}

// TestAWrongSignatureIsNeverStored lets the module return signatures with one bit changed, and
// signatures of another key.
func TestAWrongSignatureIsNeverStored(t *testing.T) {
	f := newFaulty(t, vault.CustodyWrapped)
	for name, spoil := range map[string]func(int){"one bit": f.SpoilSignature, "another key": f.SwapKey} {
		for _, k := range []int{1, 2, int(f.count), 2 * int(f.count)} {
			f.Reset()
			spoil(k)
			path, seen := f.copied(t), &shown{}
			if err := f.generate(t, path, f.count, seen); !errors.Is(err, keypackage.ErrSignerFault) {
				t.Errorf("%s in signature %d: err = %v, want %v", name, k, err, keypackage.ErrSignerFault)
			}
			f.Reset()
			if err := f.generate(t, path, f.count-uint64(len(seen.refs)), seen); err != nil {
				t.Errorf("%s in signature %d: a later run err = %v, want nil", name, k, err)
			}
			f.check(t, path, seen)
		}
	}
}

// TestFewestCalls compares the calls for a key package with the fewest that PKCS#11 needs: to
// initialize and make two signatures, and to initialize and make one encryption; with keys in the
// token, two key pairs, each read, wrapped and destroyed, instead of the encryption.
func TestFewestCalls(t *testing.T) {
	for custody, want := range map[string]map[string]int{
		vault.CustodyWrapped: {"C_SignInit": 2, "C_Sign": 2, "C_EncryptInit": 1, "C_Encrypt": 1},
		vault.CustodyToken:   {"C_SignInit": 2, "C_Sign": 2, "C_GenerateKeyPair": 2, "C_GetAttributeValue": 2, "C_WrapKey": 2, "C_DestroyObject": 4},
	} {
		f := newFaulty(t, custody)
		f.cfg.Sessions = 1
		f.cfg.Quirks.TokenObjects = true // copies are made once for each session
		made := make(map[uint64]map[string]int)
		for _, count := range []uint64{10, 110} {
			f.Reset()
			if err := f.generate(t, f.copied(t), count, &shown{}); err != nil {
				t.Fatal(err)
			}
			made[count] = f.AllCalls()
		}
		for _, function := range tokentest.Functions() {
			if got := made[110][function] - made[10][function]; got != 100*want[function] {
				t.Errorf("custody %s: %d calls of %s for 100 key packages, want %d", custody, got, function, 100*want[function])
			}
		}
	}
}
