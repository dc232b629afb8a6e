package inventory_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/ed448"
	_ "github.com/mattn/go-sqlite3"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

const (
	suite1 = ciphersuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
	suite2 = ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256
)

func TestEverySuiteGeneratesAndUnseals(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			id := f.identity(t, s.Name, s.ID)
			var got []store.KeyPackage
			n, err := inv.Generate(t.Context(), request(id, 3), func(batch []store.KeyPackage) error {
				got = append(got, batch...)
				return nil
			})
			if n != 3 || len(got) != 3 || err != nil {
				t.Fatalf("Generate() = %d, %v and showed %d, want 3", n, err, len(got))
			}
			for i := range got {
				checkUnsealable(t, inv, &got[i])
				checkRecord(t, &got[i], id.Name, s)
			}
		})
	}
}

// checkRecord checks that a record fits the key package in it and the values of request.
func checkRecord(t *testing.T, record *store.KeyPackage, name string, s *ciphersuite.Suite) {
	t.Helper()
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		t.Fatalf("Parse() err = %v, want nil", err)
	}
	report := keypackage.Validate(kp, keypackage.Policy{Now: uint64(now.Unix())})
	if len(report.Findings) > 0 {
		t.Errorf("Validate() = %v, want no findings", report.Findings)
	}
	if ref, err := kp.Ref(); err != nil || !bytes.Equal(ref, record.Ref) {
		t.Errorf("Ref() = %v, %v, want the record's %x", ref, err, record.Ref)
	}
	want := store.KeyPackage{
		Ref: record.Ref, Identity: name, Suite: uint16(s.ID), State: store.Available, Version: 1, Custody: vault.CustodyWrapped,
		WrappingKeyID: record.WrappingKeyID, Sealed: record.Sealed, Public: record.Public,
		CreatedAt: record.CreatedAt, NotBefore: now.Add(-time.Hour).UTC(), NotAfter: now.Add(84 * 24 * time.Hour).UTC(),
	}
	if made := record.CreatedAt.Sub(now); made < 0 || made > time.Minute {
		t.Errorf("it was made at %v, want %v and how long it took", record.CreatedAt, now)
	}
	if fmt.Sprint(*record) != fmt.Sprint(want) {
		t.Errorf("record = %+v, want %+v", *record, want)
	}
	if kp.LeafNode.Lifetime.NotAfter != uint64(want.NotAfter.Unix()) || kp.LeafNode.Lifetime.NotBefore != uint64(want.NotBefore.Unix()) {
		t.Errorf("lifetime = %+v, want the record's %v to %v", kp.LeafNode.Lifetime, want.NotBefore, want.NotAfter)
	}
}

// While the callback runs, another process could find and unseal what is shown.
func TestNothingIsShownBeforeItIsDurable(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite1)
	theirs := openStore(t, f.path)
	c := f.config
	c.Store = theirs
	other := inventory.New(c)
	total := 0
	n, err := f.inventory().Generate(t.Context(), request(id, 23), func(batch []store.KeyPackage) error {
		for i := range batch {
			record, err := theirs.KeyPackage(t.Context(), batch[i].Ref)
			if err != nil {
				t.Fatalf("KeyPackage() err = %v, want nil: it was shown", err)
			}
			if fmt.Sprint(record) != fmt.Sprint(batch[i]) {
				t.Errorf("the store has %+v, and %+v was shown", record, batch[i])
			}
			checkUnsealable(t, other, &record)
		}
		total += len(batch)
		counts, err := theirs.Count(t.Context(), "alice")
		if err != nil || counts[store.Available] != uint64(total) {
			t.Errorf("Count() = %v, %v when %d were shown", counts, err, total)
		}
		return nil
	})
	if n != 23 || total != 23 || err != nil {
		t.Errorf("Generate() = %d, %v and showed %d, want 23", n, err, total)
	}
}

func TestBatches(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite2)
	for _, tt := range []struct {
		count   uint64
		batch   int
		workers int
		want    []int
	}{
		{1, 1, 1, []int{1}},
		{1, 5, 4, []int{1}},
		{3, 1, 4, []int{1, 1, 1}},
		{4, 5, 4, []int{4}},
		{5, 5, 4, []int{5}},
		{11, 5, 1, []int{5, 5, 1}},
		{11, 5, 16, []int{5, 5, 1}},
		{2, 0, 0, []int{1, 1}}, // treated as 1
		{0, 5, 4, nil},
	} {
		t.Run(fmt.Sprintf("%d by %d with %d workers", tt.count, tt.batch, tt.workers), func(t *testing.T) {
			f.config.Batch, f.config.Workers = tt.batch, tt.workers
			var s shown
			start := time.Now()
			n, err := f.inventory().Generate(t.Context(), request(id, tt.count), s.take)
			if n != tt.count || uint64(len(s.refs)) != n || err != nil {
				t.Errorf("Generate() = %d, %v and showed %d, want %d", n, err, len(s.refs), tt.count)
			}
			// On a machine that stalls, a batch may be stored because of its age.
			if !slices.Equal(s.batches, tt.want) && time.Since(start) < time.Second {
				t.Errorf("batches of %v, want %v", s.batches, tt.want)
			}
		})
	}
}

// A slow token does not delay the storing of what is made.
func TestABatchThatDoesNotFillIsStoredForItsAge(t *testing.T) {
	f := newFixture(t)
	f.config.Batch, f.config.Workers = 1000, 1
	slow := &tampered{Signer: softwareKey(t, suite1), change: func(_ int64, s []byte) ([]byte, error) {
		time.Sleep(250 * time.Millisecond)
		return s, nil
	}}
	var s shown
	n, err := f.inventory().Generate(t.Context(), request(f.identityOf(t, "alice", suite1, slow), 5), s.take)
	if n != 5 || err != nil {
		t.Errorf("Generate() = %d, %v, want 5", n, err)
	}
	if len(s.batches) < 2 {
		t.Errorf("batches of %v in two seconds and a half, want one each second", s.batches)
	}
	f.checkShownIsStored(t, &s)
}

func TestPendingAndLastResortAreRecorded(t *testing.T) {
	f := newFixture(t)
	r := request(f.identity(t, "alice", suite1), 2)
	r.Pending, r.LastResort = true, true
	if _, err := f.inventory().Generate(t.Context(), r, new(shown).take); err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	for _, record := range f.records(t) {
		kp, err := keypackage.Parse(record.Public)
		if err != nil {
			t.Fatal(err)
		}
		if record.State != store.Pending || !record.PublishedAt.IsZero() || !record.LastResort || !kp.LastResort() {
			t.Errorf("record = %+v, want a key package of last resort that is published", record)
		}
	}
}

func TestAnInterruptedRunKeepsWhatItShowed(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite1)
	ctx, cancel := context.WithCancel(t.Context())
	var s shown
	const count = 200
	n, err := f.inventory().Generate(ctx, request(id, count), func(batch []store.KeyPackage) error {
		if len(s.batches) == 2 {
			cancel()
		}
		return s.take(batch)
	})
	if !errors.Is(err, inventory.ErrInterrupted) {
		t.Errorf("Generate() err = %v, want %v", err, inventory.ErrInterrupted)
	}
	if len(s.batches) < 3 || n >= count || n != uint64(len(s.refs)) {
		t.Errorf("Generate() = %d and showed %d in %d batches, want three batches or a few more", n, len(s.refs), len(s.batches))
	}
	f.checkShownIsStored(t, &s)

	rest := count - n
	if n, err := f.inventory().Generate(t.Context(), request(id, rest), s.take); n != rest || err != nil {
		t.Errorf("Generate() of the rest = %d, %v, want %d", n, err, rest)
	}
	f.checkShownIsStored(t, &s)
}

// The context ends at any point of the workers' progress.
func TestARunInterruptedAtAnyTimeKeepsWhatItShowed(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite2)
	inv := f.inventory()
	var s shown
	for round := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round)*time.Millisecond)
		before := len(s.refs)
		n, err := inv.Generate(ctx, request(id, 1_000_000), s.take)
		cancel()
		if !errors.Is(err, inventory.ErrInterrupted) {
			t.Errorf("Generate() err = %v, want %v", err, inventory.ErrInterrupted)
		}
		if n != uint64(len(s.refs)-before) {
			t.Errorf("Generate() = %d and showed %d, want the same", n, len(s.refs)-before)
		}
	}
	f.checkShownIsStored(t, &s)
}

func TestAContextThatEndedBeforeTheWorkBegan(t *testing.T) {
	f := newFixture(t)
	random := &countingReader{Reader: rand.Reader}
	f.config.Rand = random
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id := f.identityOf(t, "alice", suite1, softwareKey(t, suite1))
	if n, err := f.inventory().Generate(ctx, request(id, 5), new(shown).take); n != 0 || !errors.Is(err, inventory.ErrInterrupted) {
		t.Errorf("Generate() = %d, %v, want 0 and %v", n, err, inventory.ErrInterrupted)
	}
	if random.reads.Load() != 0 {
		t.Error("a key was made")
	}
}

func TestAnErrorOfTheCallerStopsTheWork(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite1)
	full := errors.New("the disk is full")
	var s shown
	n, err := f.inventory().Generate(t.Context(), request(id, 100_000), func(batch []store.KeyPackage) error {
		if err := s.take(batch); err != nil || len(s.batches) < 2 {
			return err
		}
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("Generate() err = %v, want the callback's", err)
	}
	if n != uint64(len(s.refs)) || len(s.batches) != 2 {
		t.Errorf("Generate() = %d and showed %d in %d batches, want nothing after the second", n, len(s.refs), len(s.batches))
	}
	f.checkShownIsStored(t, &s)
}

// failingStore fails to add from the nth batch on.
type failingStore struct {
	store.Store
	left int
	err  error
}

func (s *failingStore) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	if s.left--; s.left < 0 {
		return s.err
	}
	return s.Store.AddKeyPackages(ctx, batch)
}

func TestWhatTheStoreDidNotTakeIsNotShown(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite1)
	f.config.Store = &failingStore{Store: f.store, left: 2, err: store.ErrFull}
	var s shown
	n, err := f.inventory().Generate(t.Context(), request(id, 1000), s.take)
	if n != uint64(len(s.refs)) || len(s.batches) != 2 || !errors.Is(err, store.ErrFull) {
		t.Errorf("Generate() = %d, %v in %d batches, want two and %v", n, err, len(s.batches), store.ErrFull)
	}
	f.checkShownIsStored(t, &s)
}

func TestAWrongSignatureReachesNobody(t *testing.T) {
	for _, id := range []ciphersuite.ID{suite1, suite2} {
		// The leaf node is signed first, then the key package.
		for first := int64(1); first <= 2; first++ {
			t.Run(fmt.Sprintf("%v signature %d", id, first), func(t *testing.T) {
				f := newFixture(t)
				f.config.Workers = 1
				faulty := &tampered{Signer: softwareKey(t, id), change: func(n int64, signature []byte) ([]byte, error) {
					if n >= first {
						signature[len(signature)-1] ^= 1
					}
					return signature, nil
				}}
				var s shown
				n, err := f.inventory().Generate(t.Context(), request(f.identityOf(t, "alice", id, faulty), 20), s.take)
				if n != 0 || !errors.Is(err, keypackage.ErrSignerFault) {
					t.Errorf("Generate() = %d, %v, want 0 and %v", n, err, keypackage.ErrSignerFault)
				}
				if made := f.records(t); len(made) != 0 || len(s.refs) != 0 {
					t.Errorf("%d key packages are stored and %d shown, want none", len(made), len(s.refs))
				}
			})
		}
	}
}

// A signer that starts to fail halfway does not affect what was made correctly.
func TestASignerThatFailsLaterLeavesWhatWasMade(t *testing.T) {
	broken := errors.New("the device was removed")
	for name, change := range map[string]func([]byte) ([]byte, error){
		"it flips a bit": func(s []byte) ([]byte, error) { s[len(s)/2] ^= 0x10; return s, nil },
		"it fails":       func([]byte) ([]byte, error) { return nil, broken },
		"it is silent":   func([]byte) ([]byte, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			key := &tampered{Signer: softwareKey(t, suite1), change: func(n int64, signature []byte) ([]byte, error) {
				if n <= 50 {
					return signature, nil
				}
				return change(signature)
			}}
			var s shown
			n, err := f.inventory().Generate(t.Context(), request(f.identityOf(t, "alice", suite1, key), 1000), s.take)
			if !errors.Is(err, keypackage.ErrSignerFault) && !errors.Is(err, broken) {
				t.Errorf("Generate() err = %v, want the signer's fault", err)
			}
			if n != uint64(len(s.refs)) || n > 25 || n < 25-uint64(f.config.Workers) {
				t.Errorf("Generate() = %d and showed %d, want those that 50 signatures are enough for", n, len(s.refs))
			}
			f.checkShownIsStored(t, &s)
			for _, record := range f.records(t) {
				checkRecord(t, &record, "alice", suite(t, suite1))
			}
		})
	}
}

func softwareKey(tb testing.TB, id ciphersuite.ID) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch suite(tb, id).Signature {
	case ciphersuite.ED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ciphersuite.ED448:
		_, key, err = ed448.GenerateKey(rand.Reader)
	case ciphersuite.ECDSA_SECP256R1_SHA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ciphersuite.ECDSA_SECP384R1_SHA384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ciphersuite.ECDSA_SECP521R1_SHA512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func TestASoftwareKeySignsAsWell(t *testing.T) {
	f := newFixture(t)
	for _, s := range ciphersuite.All() {
		id := f.identityOf(t, s.Name, s.ID, softwareKey(t, s.ID))
		n, err := f.inventory().Generate(t.Context(), request(id, 3), func(batch []store.KeyPackage) error {
			for i := range batch {
				checkRecord(t, &batch[i], s.Name, s)
			}
			return nil
		})
		if n != 3 || err != nil {
			t.Errorf("%v: Generate() = %d, %v, want 3", s.ID, n, err)
		}
	}
}

// setUses sets how often the wrapping key has sealed, which no caller can do.
func (f *fixture) setUses(t *testing.T, uses uint64) {
	t.Helper()
	f.exec(t, "UPDATE wrapping_keys SET uses = ?", uses)
}

func TestASpentWrappingKeySealsNothing(t *testing.T) {
	f := newFixture(t)
	random := &countingReader{Reader: rand.Reader}
	f.config.Rand = random
	key := &tampered{Signer: softwareKey(t, suite1), change: func(_ int64, s []byte) ([]byte, error) { return s, nil }}
	id := f.identityOf(t, "alice", suite1, key)
	for _, tt := range []struct {
		uses, count uint64
		want        error
	}{
		{inventory.MaxSealings, 1, inventory.ErrWrappingKeySpent},
		{inventory.MaxSealings + 1, 1, inventory.ErrWrappingKeySpent},
		{inventory.MaxSealings - 3, 4, inventory.ErrWrappingKeySpent},
		{0, inventory.MaxSealings + 1, inventory.ErrTooMany},
		{1, 1<<64 - 1, inventory.ErrTooMany},
	} {
		f.setUses(t, tt.uses)
		var s shown
		n, err := f.inventory().Generate(t.Context(), request(id, tt.count), s.take)
		if n != 0 || len(s.refs) != 0 || !errors.Is(err, tt.want) {
			t.Errorf("%d uses: Generate(%d) = %d, %v, want 0 and %v", tt.uses, tt.count, n, err, tt.want)
		}
	}
	if random.reads.Load() != 0 || key.made.Load() != 0 {
		t.Errorf("%d reads of randomness and %d signatures, want none: a key was made", random.reads.Load(), key.made.Load())
	}

	// The last uses are not lost, and a new wrapping key starts from zero.
	f.setUses(t, inventory.MaxSealings-3)
	if n, err := f.inventory().Generate(t.Context(), request(id, 3), new(shown).take); n != 3 || err != nil {
		t.Errorf("Generate() of the last 3 = %d, %v, want 3", n, err)
	}
	if _, err := f.inventory().Generate(t.Context(), request(id, 1), new(shown).take); !errors.Is(err, inventory.ErrWrappingKeySpent) {
		t.Errorf("Generate() of one more err = %v, want %v", err, inventory.ErrWrappingKeySpent)
	}
	f.addWrappingKey(t)
	if n, err := f.inventory().Generate(t.Context(), request(id, 1), new(shown).take); n != 1 || err != nil {
		t.Errorf("Generate() under a new wrapping key = %d, %v, want 1", n, err)
	}
}

func TestGenerateWithoutAWrappingKey(t *testing.T) {
	f := newBareFixture(t)
	random := &countingReader{Reader: rand.Reader}
	f.config.Rand = random
	id := f.identityOf(t, "alice", suite1, softwareKey(t, suite1))
	if n, err := f.inventory().Generate(t.Context(), request(id, 1), new(shown).take); n != 0 || !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Generate() = %d, %v, want 0 and %v", n, err, store.ErrNotFound)
	}
	if random.reads.Load() != 0 {
		t.Error("a key was made")
	}
}

func TestARotatedWrappingKeyOpensWhatItSealed(t *testing.T) {
	f := newFixture(t)
	id := f.identity(t, "alice", suite1)
	inv := f.inventory()
	var s shown
	for range 3 {
		if _, err := inv.Generate(t.Context(), request(id, 2), s.take); err != nil {
			t.Fatalf("Generate() err = %v, want nil", err)
		}
		f.addWrappingKey(t)
	}
	f.checkShownIsStored(t, &s)
}

func TestEveryUseOfTheWrappingKeyIsCounted(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	id := f.identity(t, "alice", suite1)
	for _, count := range []uint64{1, 7, 5} {
		if _, err := inv.Generate(t.Context(), request(id, count), new(shown).take); err != nil {
			t.Fatalf("Generate() err = %v, want nil", err)
		}
	}
	key, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil || key.Uses != 13 {
		t.Errorf("Uses = %d, %v, want 13", key.Uses, err)
	}
}

// dry is a source of randomness that runs out.
type dry struct{ left atomic.Int64 }

var errDry = errors.New("no more randomness")

func (d *dry) Read(b []byte) (int, error) {
	if d.left.Add(-1) < 0 {
		return 0, errDry
	}
	return rand.Read(b)
}

// Keys and nonces come only from the inventory's source.
func TestNothingIsMadeWithoutRandomness(t *testing.T) {
	f := newFixture(t)
	f.config.Workers = 1
	id := f.identity(t, "alice", suite1)
	for reads := range int64(3) { // init key, encryption key, nonce
		d := new(dry)
		d.left.Store(reads)
		f.config.Rand = d
		n, err := f.inventory().Generate(t.Context(), request(id, 1), new(shown).take)
		if n != 0 || !errors.Is(err, errDry) {
			t.Errorf("%d reads: Generate() = %d, %v, want 0 and %v", reads, n, err, errDry)
		}
	}
	if made := f.records(t); len(made) != 0 {
		t.Errorf("%d key packages are stored, want none", len(made))
	}
}

func TestSeveralRunsAtOnce(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	ids := []ciphersuite.ID{suite1, suite2}
	all := make([]shown, 2*len(ids))
	var runs sync.WaitGroup
	for i := range all {
		id := f.identity(t, fmt.Sprint("identity ", i), ids[i%len(ids)])
		runs.Go(func() {
			if n, err := inv.Generate(t.Context(), request(id, 22), all[i].take); n != 22 || err != nil {
				t.Errorf("Generate() = %d, %v, want 22", n, err)
			}
		})
	}
	runs.Wait()
	var s shown
	for i := range all {
		s.refs, s.initKeys = append(s.refs, all[i].refs...), append(s.initKeys, all[i].initKeys...)
	}
	f.checkShownIsStored(t, &s)
}

func TestNoGoroutineOutlivesGenerate(t *testing.T) {
	f := newFixture(t)
	good := f.identity(t, "alice", suite2)
	broken := &tampered{Signer: softwareKey(t, suite1), change: func(n int64, s []byte) ([]byte, error) {
		if n > 30 {
			return nil, io.ErrUnexpectedEOF
		}
		return s, nil
	}}
	faulty := f.identityOf(t, "bob", suite1, broken)
	inv := f.inventory()
	c := f.config
	c.Store = &failingStore{Store: f.store, left: 0, err: store.ErrFull}
	full := inventory.New(c)
	nothing := func([]store.KeyPackage) error { return nil }
	warm := func() error { _, err := inv.Generate(t.Context(), request(good, 20), nothing); return err }
	if err := warm(); err != nil { // connections and sessions stay open
		t.Fatal(err)
	}
	base := runtime.NumGoroutine()
	for name, run := range map[string]func() error{
		"success": warm,
		"cancel": func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := inv.Generate(ctx, request(good, 100_000), func([]store.KeyPackage) error { cancel(); return nil })
			return err
		},
		"the callback fails": func() error {
			_, err := inv.Generate(t.Context(), request(good, 100_000), func([]store.KeyPackage) error { return io.ErrClosedPipe })
			return err
		},
		"the store fails":  func() error { _, err := full.Generate(t.Context(), request(good, 100_000), nothing); return err },
		"the signer fails": func() error { _, err := inv.Generate(t.Context(), request(faulty, 100_000), nothing); return err },
	} {
		t.Run(name, func(t *testing.T) {
			// The test itself runs in a goroutine that base does not include.
			if err := run(); (err == nil) != (name == "success") {
				t.Errorf("Generate() err = %v", err)
			}
			checkNoGoroutineIsLeft(t, base+1)
		})
	}
}

// BenchmarkGenerate makes key packages end to end: keys, two signatures and a sealing in the token,
// and the commit.
func BenchmarkGenerate(b *testing.B) {
	for _, s := range ciphersuite.All() {
		b.Run(fmt.Sprintf("suite=%d", s.ID), func(b *testing.B) {
			f := newFixture(b)
			f.config.Batch = 500
			f.config.Workers = f.token.Sessions() + runtime.GOMAXPROCS(0)
			id, inv := f.identity(b, "alice", s.ID), f.inventory()
			nothing := func([]store.KeyPackage) error { return nil }
			b.ReportAllocs()
			b.ResetTimer()
			if _, err := inv.Generate(b.Context(), request(id, uint64(b.N)), nothing); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keypackages/s")
		})
	}
}
