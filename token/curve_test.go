package token

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/asn1"
	"testing"

	"github.com/miekg/pkcs11"
)

// points returns a public key on the curve, bare and as a DER OCTET STRING.
func points(t *testing.T, c Curve) (bare, wrapped []byte) {
	t.Helper()
	p := c.params()
	bare = make([]byte, p.point)
	if !p.edwards() {
		key, err := ecdsa.GenerateKey(p.nist, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if bare, err = key.PublicKey.Bytes(); err != nil {
			t.Fatal(err)
		}
	}
	wrapped, err := asn1.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	return bare, wrapped
}

func TestPointIsReadBareAndInAnOctetString(t *testing.T) {
	for _, c := range Curves() {
		bare, wrapped := points(t, c)
		for _, b := range [][]byte{bare, wrapped} {
			if _, err := c.params().parsePoint(b); err != nil {
				t.Errorf("%v: parsePoint() of %d bytes err = %v, want nil", c, len(b), err)
			}
			for i := range b {
				if i == c.params().point {
					continue // an Edwards point may be any bytes of the right length
				}
				if key, err := c.params().parsePoint(b[:i]); err == nil {
					t.Errorf("%v: parsePoint() of %d bytes of %d = %v, want an error", c, i, len(b), key)
				}
			}
			if key, err := c.params().parsePoint(append(b[:len(b):len(b)], 0)); err == nil {
				t.Errorf("%v: parsePoint() with a byte more = %v, want an error", c, key)
			}
		}
	}
}

func TestPointThatIsNotOnTheCurveIsRefused(t *testing.T) {
	for _, c := range []Curve{P256, P384, P521} {
		bare, _ := points(t, c)
		bare[len(bare)-1] ^= 1
		if key, err := c.params().parsePoint(bare); err == nil {
			t.Errorf("%v: parsePoint() = %v, want an error", c, key)
		}
	}
}

func FuzzParsePoint(f *testing.F) {
	f.Add([]byte{4, 32})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range Curves() {
			_, _ = c.params().parsePoint(b)
		}
	})
}

func TestCurveIsToldByKeyTypeAndParameters(t *testing.T) {
	for _, c := range []struct {
		keyType uint
		params  string
		want    Curve
	}{
		{pkcs11.CKK_EC, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", P256},
		{ckkECEdwards, "\x06\x03\x2b\x65\x70", Ed25519},
		{ckkECEdwards, "\x13\x0cedwards25519", Ed25519},
		{ckkECEdwards, "\x13\x0aedwards448", Ed448},
		{ckkECEdwards, "\x06\x03\x2b\x65\x6e", 0}, // X25519, as SoftHSM keeps it
		{ckkECEdwards, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 0},
		{pkcs11.CKK_EC, "\x06\x05\x2b\x81\x04\x00\x0a", 0}, // secp256k1
		{pkcs11.CKK_RSA, "", 0},
	} {
		if got := curveOf(c.keyType, []byte(c.params)); got != c.want {
			t.Errorf("curveOf(0x%X, %x) = %v, want %v", c.keyType, c.params, got, c.want)
		}
	}
}

func TestSizeOfEdDSAParams(t *testing.T) {
	// CK_BBOOL, CK_ULONG and a pointer, aligned, on the 64-bit systems in use.
	if ^uint(0)>>63 == 1 && eddsaParamsSize != 24 {
		t.Errorf("eddsaParamsSize = %d, want 24", eddsaParamsSize)
	}
}
