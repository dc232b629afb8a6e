package certificate_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
)

var (
	now    = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	past   = now.Add(-time.Hour)
	future = now.Add(time.Hour)
)

func pool(cas ...*certificatetest.CA) *x509.CertPool {
	p := x509.NewCertPool()
	for _, ca := range cas {
		p.AddCert(ca.Certificate)
	}
	return p
}

// Each case breaks one rule and names all faults that Check finds. The chain without the change has
// none.
func TestCheckFinds(t *testing.T) {
	root := certificatetest.NewRoot(t)
	key := certificatetest.NewKey(t)
	expired := func(c *x509.Certificate) { c.NotAfter = past }
	early := func(c *x509.Certificate) { c.NotBefore = future }
	noCA := func(c *x509.Certificate) { c.IsCA = false }
	for name, test := range map[string]struct {
		sub, leaf certificatetest.Change
		// arrange orders the three certificates into the chain.
		arrange func(leaf, sub, root *x509.Certificate) certificate.Chain
		roots   *x509.CertPool
		want    []certificate.Kind
		at      int
	}{
		"good":                            {},
		"leaf expired":                    {leaf: expired, want: []certificate.Kind{certificate.Expired}},
		"issuer expired":                  {sub: expired, want: []certificate.Kind{certificate.Expired}, at: 1},
		"leaf not yet valid":              {leaf: early, want: []certificate.Kind{certificate.NotYetValid}},
		"leaf may not sign":               {leaf: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, want: []certificate.Kind{certificate.WrongUsage}},
		"leaf without key usage":          {leaf: func(c *x509.Certificate) { c.KeyUsage = 0 }},
		"leaf for another extended usage": {leaf: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }},
		"issuer is no CA":                 {sub: noCA, want: []certificate.Kind{certificate.MayNotSign}, at: 1},
		"issuer without basic constraints": {sub: func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false },
			want: []certificate.Kind{certificate.MayNotSign}, at: 1},
		"issuer may not issue": {sub: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
			want: []certificate.Kind{certificate.MayNotSign}, at: 1},
		"name constraint": {sub: func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other.example"} },
			want: []certificate.Kind{certificate.NotAcceptable}},
		"leaf last": {arrange: func(leaf, sub, root *x509.Certificate) certificate.Chain { return certificate.Chain{sub, root, leaf} },
			want: []certificate.Kind{certificate.WrongUsage, certificate.OutOfOrder}, at: 0},
		"issuers swapped": {arrange: func(leaf, sub, root *x509.Certificate) certificate.Chain { return certificate.Chain{leaf, root, sub} },
			want: []certificate.Kind{certificate.OutOfOrder, certificate.OutOfOrder}},
		"issuer left out": {arrange: func(leaf, sub, root *x509.Certificate) certificate.Chain { return certificate.Chain{leaf, root} },
			want: []certificate.Kind{certificate.OutOfOrder}},
		"anchor left out":        {arrange: func(leaf, sub, _ *x509.Certificate) certificate.Chain { return certificate.Chain{leaf, sub} }},
		"anchor left out, roots": {arrange: func(leaf, sub, _ *x509.Certificate) certificate.Chain { return certificate.Chain{leaf, sub} }, roots: pool(root)},
		"leaf alone":             {arrange: func(leaf, _, _ *x509.Certificate) certificate.Chain { return certificate.Chain{leaf} }},
		"known root":             {roots: pool(root)},
		"unknown root":           {roots: pool(certificatetest.NewRoot(t)), want: []certificate.Kind{certificate.UnknownRoot}, at: 2},
		"no roots at all":        {roots: x509.NewCertPool(), want: []certificate.Kind{certificate.UnknownRoot}, at: 2},
		"another root by the same key name": {arrange: func(leaf, sub, _ *x509.Certificate) certificate.Chain {
			return certificate.Chain{leaf, sub, certificatetest.NewRoot(t).Certificate}
		}, want: []certificate.Kind{certificate.BadSignature}, at: 1},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(c certificatetest.Change) certificatetest.Change {
				if c == nil {
					return func(*x509.Certificate) {}
				}
				return c
			}
			sub := root.Sub(t, "issuing", change(test.sub))
			leaf := sub.Issue(t, key.Public(), change(test.leaf))
			chain := certificate.Chain{leaf, sub.Certificate, root.Certificate}
			if test.arrange != nil {
				chain = test.arrange(leaf, sub.Certificate, root.Certificate)
			}
			wantFaults(t, chain, test.roots, test.at, test.want...)
		})
	}
}

func wantFaults(t *testing.T, chain certificate.Chain, roots *x509.CertPool, at int, want ...certificate.Kind) {
	t.Helper()
	faults := chain.Check(certificate.Options{Now: now, Roots: roots})
	var got []certificate.Kind
	for _, f := range faults {
		got = append(got, f.Kind)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("Check() = %v, want kinds %v", faults, want)
	}
	if len(faults) > 0 && faults[0].Index != at {
		t.Errorf("Check() = %v, want the first at certificate %d", faults, at)
	}
}

func TestPathLengthCountsTheCAsBelow(t *testing.T) {
	one := func(c *x509.Certificate) { c.MaxPathLen = 1 }
	zero := func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }
	key := certificatetest.NewKey(t)

	root := certificatetest.NewRoot(t, one)
	upper := root.Sub(t, "upper", zero)
	leaf := upper.Issue(t, key.Public())
	wantFaults(t, certificate.Chain{leaf, upper.Certificate, root.Certificate}, pool(root), 0)

	lower := upper.Sub(t, "lower")
	leaf = lower.Issue(t, key.Public())
	wantFaults(t, certificate.Chain{leaf, lower.Certificate, upper.Certificate, root.Certificate}, pool(root), 2,
		certificate.TooLong, certificate.TooLong)
}

func TestSignatureThatDoesNotVerify(t *testing.T) {
	root := certificatetest.NewRoot(t)
	leaf := root.Issue(t, certificatetest.NewKey(t).Public())
	raw := slices.Clone(leaf.Raw)
	raw[len(raw)-1] ^= 1
	chain, err := certificate.Parse([][]byte{raw, root.Certificate.Raw})
	if err != nil {
		t.Fatal(err)
	}
	wantFaults(t, chain, nil, 0, certificate.BadSignature)
}

// RSA and EC issuers, and leaves of every kind that a suite has.
func TestIssuersAndLeavesOfEveryKind(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"RSA": rsaKey, "Ed25519": edKey}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if keys[curve.Params().Name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]string{"RSA": "RSA", "Ed25519": "ed25519", "P-256": "ecdsa_secp256r1_sha256",
		"P-384": "ecdsa_secp384r1_sha384", "P-521": "ecdsa_secp521r1_sha512"}
	for issuerName, issuer := range keys {
		root := certificatetest.NewRootWithKey(t, issuer)
		for leafName, leaf := range keys {
			chain := certificate.Chain{root.Issue(t, leaf.Public()), root.Certificate}
			if faults := chain.Check(certificate.Options{Now: now, Roots: pool(root)}); len(faults) > 0 {
				t.Errorf("%s by %s: Check() = %v, want nothing", leafName, issuerName, faults)
			}
			if got, want := certificate.KeyName(chain[0]), names[leafName]; got != want {
				t.Errorf("KeyName() = %q, want %q", got, want)
			}
		}
	}
}

func TestValidityIsWhatAllCertificatesHave(t *testing.T) {
	root := certificatetest.NewRoot(t, func(c *x509.Certificate) { c.NotBefore = past })
	leaf := root.Issue(t, certificatetest.NewKey(t).Public(), func(c *x509.Certificate) { c.NotAfter = future })
	notBefore, notAfter := certificate.Chain{leaf, root.Certificate}.Validity()
	if !notBefore.Equal(past) || !notAfter.Equal(future) {
		t.Errorf("Validity() = %v, %v, want %v, %v", notBefore, notAfter, past, future)
	}
}

func TestFaultsAreSentences(t *testing.T) {
	root := certificatetest.NewRoot(t)
	leaf := root.Issue(t, certificatetest.NewKey(t).Public(), func(c *x509.Certificate) { c.NotAfter = past })
	faults := certificate.Chain{leaf}.Check(certificate.Options{Now: now})
	if len(faults) != 1 || !strings.HasPrefix(faults[0].String(), "certificate 0 expired at 2027-01-15T07:00:00Z") {
		t.Errorf("Check() = %v, want one sentence with the date", faults)
	}
}

func TestLongChainsAreNotLookedAt(t *testing.T) {
	root := certificatetest.NewRoot(t)
	cas := []*certificatetest.CA{root}
	for len(cas) < certificate.MaxLength {
		cas = append(cas, cas[len(cas)-1].Sub(t, fmt.Sprint("sub ", len(cas))))
	}
	chain := certificate.Chain{cas[len(cas)-1].Issue(t, certificatetest.NewKey(t).Public())}
	for _, ca := range slices.Backward(cas) {
		chain = append(chain, ca.Certificate)
	}
	wantFaults(t, chain[:certificate.MaxLength], nil, 0)
	wantFaults(t, chain, nil, certificate.MaxLength, certificate.NotAcceptable)
}

func TestACertificateStandsOnce(t *testing.T) {
	root := certificatetest.NewRoot(t)
	leaf := root.Issue(t, certificatetest.NewKey(t).Public())
	wantFaults(t, certificate.Chain{leaf, root.Certificate, root.Certificate}, nil, 2, certificate.NotAcceptable)
}

// A chain in the wrong order must still lead to a root: an unrelated certificate after a foreign
// one is not a path to it.
func TestAGapDoesNotHideAnUnknownRoot(t *testing.T) {
	root, stranger := certificatetest.NewRoot(t), certificatetest.NewRoot(t, func(c *x509.Certificate) { c.Subject.CommonName = "stranger" })
	leaf := stranger.Issue(t, certificatetest.NewKey(t).Public())
	wantFaults(t, certificate.Chain{leaf, root.Certificate}, pool(root), 0, certificate.OutOfOrder, certificate.UnknownRoot)
	sub := root.Sub(t, "sub")
	leaf = sub.Issue(t, certificatetest.NewKey(t).Public())
	wantFaults(t, certificate.Chain{leaf, root.Certificate, sub.Certificate}, pool(root), 0, certificate.OutOfOrder, certificate.OutOfOrder)
}

// Signatures of overlong keys are not verified: that would take minutes.
func TestLongRSAKeysAreNotUsed(t *testing.T) {
	root := certificatetest.NewRoot(t)
	long := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1<<18, 1), E: 65537}
	sub := root.Issue(t, long, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
	leaf := root.Issue(t, certificatetest.NewKey(t).Public())
	wantFaults(t, certificate.Chain{leaf, sub}, nil, 1, certificate.NotAcceptable)
}

func TestNoKeyIsNotCertified(t *testing.T) {
	if (certificate.Chain{&x509.Certificate{}}).Certifies(nil) {
		t.Error("Certifies(nil) = true, want false")
	}
}

func TestUnknownCriticalExtensions(t *testing.T) {
	root := certificatetest.NewRoot(t)
	sub := root.Sub(t, "sub", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	})
	leaf := sub.Issue(t, certificatetest.NewKey(t).Public())
	wantFaults(t, certificate.Chain{leaf, sub.Certificate}, nil, 1, certificate.NotAcceptable)
}
