package inventory_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// withoutStore answers from memory, and reserves nothing.
type withoutStore struct {
	store.Store
	record store.KeyPackage
	keys   []store.WrappingKey
}

func (s *withoutStore) KeyPackage(context.Context, []byte) (store.KeyPackage, error) {
	return s.record, nil
}

func (s *withoutStore) WrappingKeys(context.Context) ([]store.WrappingKey, error) { return s.keys, nil }

func (s *withoutStore) Reserve(context.Context, store.Reservation) (store.KeyPackage, error) {
	return s.record, nil
}

// BenchmarkOpenWelcome compares opening a Welcome with the least that it needs: with sealed keys,
// one AES-GCM decryption in the token and one HPKE opening in software; with keys in the token, one
// C_UnwrapKey and one C_DeriveKey. Both are timed in turn, in one loop. "bare" and "open" are
// microseconds, "ratio" is open/bare; "signed" opens a Welcome with the signer's leaf, so that the
// GroupInfo's signature is verified too; "kept" also seals the leaf's private key on its own;
// "stored" also reserves it in a store on disk.
func BenchmarkOpenWelcome(b *testing.B) {
	for _, c := range []struct {
		custody string
		suites  []ciphersuite.ID
	}{{vault.CustodyWrapped, []ciphersuite.ID{1, 2, 5, 7}}, {vault.CustodyToken, []ciphersuite.ID{2, 5, 7}}} {
		for _, id := range c.suites {
			b.Run(c.custody+"/"+id.String(), func(b *testing.B) { benchmarkOpen(b, c.custody, suite(b, id)) })
		}
	}
}

func benchmarkOpen(b *testing.B, custody string, s *ciphersuite.Suite) {
	f := newFixture(b)
	f.addWrappingKeyBy(b, vault.AESKeyWrap)
	r := request(f.identity(b, "alice", s.ID), 1)
	r.Custody = custody
	var record store.KeyPackage
	_, err := f.inventory().Generate(b.Context(), r, func(batch []store.KeyPackage) error {
		record = batch[0]
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		b.Fatal(err)
	}
	keys, err := f.store.WrappingKeys(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	config := f.config
	config.Store = &withoutStore{Store: f.store, record: record, keys: keys}
	inv, stored := inventory.New(config), f.inventory()
	g := welcometest.NewGroup(b, s)
	signed := inventory.WelcomeRequest{Welcome: g.Welcome(kp), Now: now, Until: now.Add(time.Hour)}
	g.Info.Extensions = nil // the signer's leaf is not available
	ask := signed
	ask.Welcome = g.Welcome(kp)
	keep := ask
	keep.KeepLeaf = true
	bare := bareOf(b, f, custody, s, &record, kp)

	var spent [5]time.Duration
	works := [5]func() error{
		bare,
		func() error { return opened(inv.OpenWelcome(b.Context(), ask)) },
		func() error { return opened(inv.OpenWelcome(b.Context(), signed)) },
		func() error { return opened(inv.OpenWelcome(b.Context(), keep)) },
		func() error { return opened(stored.OpenWelcome(b.Context(), ask)) },
	}
	for b.Loop() {
		for i, work := range works {
			start := time.Now()
			if err := work(); err != nil {
				b.Fatal(err)
			}
			spent[i] += time.Since(start)
		}
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(each(spent[0]), "bare-µs")
	b.ReportMetric(each(spent[1]), "open-µs")
	b.ReportMetric(each(spent[2]), "signed-µs")
	b.ReportMetric(each(spent[3]), "kept-µs")
	b.ReportMetric(each(spent[4]), "stored-µs")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}

func opened(o *inventory.OpenedWelcome, err error) error {
	o.Clear()
	return err
}

// bareOf returns the least that an opening needs.
func bareOf(b *testing.B, f *fixture, custody string, s *ciphersuite.Suite, record *store.KeyPackage, kp *keypackage.KeyPackage) func() error {
	b.Helper()
	if custody == vault.CustodyToken {
		return bareInToken(b, f, record, kp)
	}
	key, err := f.token.FindWrappingKey(b.Context(), record.WrappingKeyID)
	if err != nil {
		b.Fatal(err)
	}
	var nonce [token.NonceSize]byte
	sealed, err := key.Seal(b.Context(), &nonce, make([]byte, 2*s.Nsk+2), make([]byte, 96))
	if err != nil {
		b.Fatal(err)
	}
	private, err := hpke.GenerateKeyPair(s, f.config.Rand)
	if err != nil {
		b.Fatal(err)
	}
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, private.PublicKey(), "Welcome", make([]byte, 300), make([]byte, 100))
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		_, err := key.Open(b.Context(), nonce, sealed, make([]byte, 96))
		_, openErr := hpke.DecryptWithLabel(private, "Welcome", make([]byte, 300), kemOutput, ciphertext)
		return errors.Join(err, openErr)
	}
}

func bareInToken(b *testing.B, f *fixture, record *store.KeyPackage, kp *keypackage.KeyPackage) func() error {
	b.Helper()
	key, err := f.token.FindKeyWrappingKey(b.Context(), record.WrappingKeyID)
	if err != nil {
		b.Fatal(err)
	}
	blob, err := vault.ParseWrappedBlob(record.Sealed)
	if err != nil {
		b.Fatal(err)
	}
	curve := map[ciphersuite.ID]ecdh.Curve{2: ecdh.P256(), 5: ecdh.P521(), 7: ecdh.P384()}[kp.CipherSuite]
	public, err := curve.NewPublicKey(kp.InitKey)
	if err != nil {
		b.Fatal(err)
	}
	peer, err := curve.GenerateKey(f.config.Rand)
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		return key.Unwrap(b.Context(), blob.Mechanism, public, blob.Init, func(x ecdh.KeyExchanger) error {
			_, err := x.ECDH(peer.PublicKey())
			return err
		})
	}
}

// BenchmarkLatency makes key packages on 32 sessions of a token that takes 5 ms a call. "calls" is
// how many calls a key package takes. "limit" is the ratio of the rate to what 32 sessions can do
// at the six calls that it needs, and "bare" the ratio to what as many sessions and goroutines
// achieve in the same run if they only make these calls.
func BenchmarkLatency(b *testing.B) {
	const sessions, latency, needed = 32, 5 * time.Millisecond, 6
	cfg := softhsmtest.Config(b)
	m := tokentest.New(b, cfg.Module)
	cfg.Sessions = sessions
	tok := m.Open(b, cfg)
	f := &fixture{token: tok, path: filepath.Join(b.TempDir(), "store.db")}
	f.store = openStore(b, f.path)
	f.config = inventory.Config{Store: f.store, Ring: ring{tok}, Rand: rand.Reader, Workers: sessions + 8*runtime.GOMAXPROCS(0), Batch: 500}
	sealing, err := tok.FindWrappingKey(b.Context(), f.addWrappingKey(b))
	if err != nil {
		b.Fatal(err)
	}
	id := f.identity(b, "alice", ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256)
	m.SetLatency(latency)
	defer m.SetLatency(0)
	b.ResetTimer()

	start, before := time.Now(), calls(m)
	if _, err := f.inventory().Generate(b.Context(), request(id, uint64(b.N)), func([]store.KeyPackage) error { return nil }); err != nil {
		b.Fatal(err)
	}
	took, made := time.Since(start), calls(m)-before

	b.StopTimer()
	start = time.Now()
	repeat(b, sessions, func() error {
		for range 2 {
			if _, err := id.Signer.Sign(rand.Reader, make([]byte, crypto.SHA256.Size()), crypto.SHA256); err != nil {
				return err
			}
		}
		var nonce [token.NonceSize]byte
		rand.Read(nonce[:])
		_, err := sealing.Seal(b.Context(), &nonce, make([]byte, 66), make([]byte, 96))
		return err
	})
	bare := time.Since(start)

	rate := float64(b.N) / took.Seconds()
	b.ReportMetric(rate, "keypackages/s")
	b.ReportMetric(float64(made)/float64(b.N), "calls")
	b.ReportMetric(rate*needed*latency.Seconds()/sessions, "limit")
	b.ReportMetric(bare.Seconds()/took.Seconds(), "bare")
}

// calls returns how many calls the module has had.
func calls(m *tokentest.Module) (n int) {
	for _, made := range m.AllCalls() {
		n += made
	}
	return n
}

// repeat calls f b.N times in total, from several goroutines.
func repeat(b *testing.B, goroutines int, f func() error) {
	var begun atomic.Int64
	var g errgroup.Group
	for range goroutines {
		g.Go(func() error {
			for begun.Add(1) <= int64(b.N) {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}
