package hpke_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// exchangeCurves are the curves of the DHKEMs that crypto/ecdh has, by KEM.
var exchangeCurves = map[uint16]ecdh.Curve{
	0x0010: ecdh.P256(), 0x0011: ecdh.P384(), 0x0012: ecdh.P521(), 0x0020: ecdh.X25519(),
}

// exchangeSuites are those with such a curve.
func exchangeSuites() []*ciphersuite.Suite {
	return slices.DeleteFunc(ciphersuite.All(), func(s *ciphersuite.Suite) bool { return exchangeCurves[s.KEM] == nil })
}

func newECDHKey(tb testing.TB, c ecdh.Curve) *ecdh.PrivateKey {
	tb.Helper()
	k, err := c.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newExchangeKey(tb testing.TB, s *ciphersuite.Suite, kx ecdh.KeyExchanger) *hpke.ExchangeKey {
	tb.Helper()
	k, err := hpke.NewExchangeKey(s, kx)
	if err != nil {
		tb.Fatalf("NewExchangeKey() err = %v, want nil", err)
	}
	return k
}

// device is a key exchanger that fails, or keeps the secrets that it returned.
type device struct {
	ecdh.KeyExchanger
	err     error
	secrets [][]byte
}

func (d *device) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	secret, err := d.KeyExchanger.ECDH(peer)
	d.secrets = append(d.secrets, secret)
	return secret, err
}

func TestExchangeKeyOpensWhatIsEncryptedToIt(t *testing.T) {
	suites := exchangeSuites()
	if len(suites) != 5 { // RFC 9420 has seven, two of them with X448
		t.Fatalf("%d suites with a curve of crypto/ecdh, want 5", len(suites))
	}
	for _, s := range suites {
		t.Run(s.Name, func(t *testing.T) {
			d := &device{KeyExchanger: newECDHKey(t, exchangeCurves[s.KEM])}
			k := newExchangeKey(t, s, d)
			if err := hpke.ValidPublicKey(s, k.PublicKey()); err != nil {
				t.Fatalf("ValidPublicKey() err = %v, want nil", err)
			}
			for _, plaintext := range [][]byte{{}, []byte("group secrets"), bytes.Repeat([]byte{7}, 70_000)} {
				kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, []byte(context), plaintext)
				if err != nil {
					t.Fatalf("EncryptWithLabel() err = %v, want nil", err)
				}
				got, err := hpke.DecryptWithLabel(k, label, []byte(context), kemOutput, ciphertext)
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("DecryptWithLabel() of %d bytes = %d bytes, %v", len(plaintext), len(got), err)
				}
			}
			for _, secret := range d.secrets {
				if !bytes.Equal(secret, make([]byte, len(secret))) {
					t.Error("a shared secret is not cleared after Open()")
				}
			}
		})
	}
}

func TestExchangeKeyOpensWhatASecretKeyOpens(t *testing.T) {
	for _, s := range exchangeSuites() {
		secret := newKey(t, s)
		private, err := exchangeCurves[s.KEM].NewPrivateKey(secret.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		k := newExchangeKey(t, s, private)
		if !bytes.Equal(k.PublicKey(), secret.PublicKey()) {
			t.Errorf("%v: PublicKey() = %x, want %x", s.ID, k.PublicKey(), secret.PublicKey())
		}
		for i := range 20 {
			plaintext := fmt.Appendf(nil, "group secrets %d", i)
			kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, secret.PublicKey(), label, nil, plaintext)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []hpke.PrivateKey{k, secret} {
				if got, err := hpke.DecryptWithLabel(k, label, nil, kemOutput, ciphertext); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%v: DecryptWithLabel() with a %T = %q, %v, want %q", s.ID, k, got, err, plaintext)
				}
			}
		}
	}
}

// misnamed says that it is on another curve than its public key.
type misnamed struct{ ecdh.KeyExchanger }

func (misnamed) Curve() ecdh.Curve { return ecdh.P256() }

func TestExchangeKeyOnAnotherCurveIsRefused(t *testing.T) {
	for _, s := range ciphersuite.All() {
		for kem, c := range exchangeCurves {
			if _, err := hpke.NewExchangeKey(s, newECDHKey(t, c)); (err == nil) != (kem == s.KEM) {
				t.Errorf("%v: NewExchangeKey() on %v err = %v", s.ID, c, err)
			}
		}
	}
	if _, err := hpke.NewExchangeKey(suite(t, 2), misnamed{newECDHKey(t, ecdh.P384())}); err == nil {
		t.Error("NewExchangeKey() with a public key on another curve err = nil, want one")
	}
}

func TestExchangeKeyTellsItsErrorFromThatOfACiphertext(t *testing.T) {
	gone := errors.New("the token is gone")
	for _, s := range exchangeSuites() {
		d := &device{KeyExchanger: newECDHKey(t, exchangeCurves[s.KEM])}
		k := newExchangeKey(t, s, d)
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, nil, []byte("group secrets"))
		if err != nil {
			t.Fatal(err)
		}
		d.err = gone
		if got, err := hpke.DecryptWithLabel(k, label, nil, kemOutput, ciphertext); !errors.Is(err, gone) || errors.Is(err, hpke.ErrOpen) || got != nil {
			t.Errorf("%v: DecryptWithLabel() = %q, %v, want the exchanger's error alone", s.ID, got, err)
		}
		// What cannot be a KEM output is refused before the exchanger is asked.
		for name, bad := range map[string][]byte{
			"empty": nil, "short": kemOutput[1:], "long": append(bytes.Clone(kemOutput), 0), "zero": make([]byte, s.Nenc),
		} {
			if got, err := hpke.DecryptWithLabel(k, label, nil, bad, ciphertext); !errors.Is(err, hpke.ErrOpen) || errors.Is(err, gone) || got != nil {
				t.Errorf("%v: DecryptWithLabel() of a KEM output that is %s = %q, %v, want %v", s.ID, name, got, err, hpke.ErrOpen)
			}
		}
		d.err = nil
		if got, err := hpke.DecryptWithLabel(k, label, nil, kemOutput, ciphertext); err != nil || string(got) != "group secrets" {
			t.Errorf("%v: DecryptWithLabel() afterwards = %q, %v", s.ID, got, err)
		}
	}
}

func TestWhatIsCutOrChangedAnywhereDoesNotOpenForAnExchangeKey(t *testing.T) {
	for _, s := range exchangeSuites() {
		k := newExchangeKey(t, s, newECDHKey(t, exchangeCurves[s.KEM]))
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, nil, []byte("group secrets"))
		if err != nil {
			t.Fatal(err)
		}
		sealed := append(bytes.Clone(kemOutput), ciphertext...)
		decrypt := func(sealed []byte) error {
			n := min(s.Nenc, len(sealed))
			_, err := hpke.DecryptWithLabel(k, label, nil, sealed[:n], sealed[n:])
			return err
		}
		for i := range sealed {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1
			if err := decrypt(sealed[:i]); !errors.Is(err, hpke.ErrOpen) {
				t.Errorf("%v, cut before byte %d: err = %v, want %v", s.ID, i, err, hpke.ErrOpen)
			}
			if err := decrypt(changed); !errors.Is(err, hpke.ErrOpen) {
				t.Errorf("%v, byte %d changed: err = %v, want %v", s.ID, i, err, hpke.ErrOpen)
			}
		}
	}
}

func TestExchangeKeyPrintsAsRedacted(t *testing.T) {
	k := newExchangeKey(t, suite(t, 2), newECDHKey(t, ecdh.P256()))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		for _, v := range []any{k, *k} {
			if got := fmt.Sprintf(verb, v); got != "REDACTED" {
				t.Errorf("Sprintf(%q) of a %T = %q, want REDACTED", verb, v, got)
			}
		}
	}
}
