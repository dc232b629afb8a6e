package keypackage_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestBuiltKeyPackageSaysWhatTheTemplateSays(t *testing.T) {
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			signer := newSigner(t, s)
			b, err := keypackage.NewBuilder(newTemplate(s), signer)
			if err != nil {
				t.Fatalf("NewBuilder() err = %v, want nil", err)
			}
			initKey, encryptionKey := newPublicKey(t, s), newPublicKey(t, s)
			v, err := b.Build(rand.Reader, initKey, encryptionKey)
			if err != nil {
				t.Fatalf("Build() err = %v, want nil", err)
			}
			kp := v.KeyPackage()
			_, signatureKey, _ := ciphersuite.MarshalPublicKey(signer.Public())
			wantEqual(t, "InitKey", kp.InitKey, initKey)
			wantEqual(t, "EncryptionKey", kp.LeafNode.EncryptionKey, encryptionKey)
			wantEqual(t, "SignatureKey", kp.LeafNode.SignatureKey, signatureKey)
			wantEqual(t, "Identity", kp.LeafNode.Credential.Identity, []byte("alice@example.com"))
			if kp.Version != keypackage.MLS10 || kp.CipherSuite != s.ID || kp.LeafNode.Source != keypackage.SourceKeyPackage || kp.LeafNode.Lifetime != lifetime {
				t.Errorf("KeyPackage() = %+v, want version, suite, source and lifetime of the template", kp)
			}
			if len(v.Ref()) != s.Nh {
				t.Errorf("Ref() has %d bytes, want %d", len(v.Ref()), s.Nh)
			}
			if err := kp.LeafNode.Verify(s, nil, 0); err != nil {
				t.Errorf("LeafNode.Verify() err = %v, want nil", err)
			}
		})
	}
}

func TestExtensionsInUseAreListed(t *testing.T) {
	template := newTemplate(suiteOf(t, 2))
	template.Capabilities.Extensions = []keypackage.ExtensionType{0xF002}
	template.LeafExtensions = []keypackage.Extension{{Type: keypackage.ExtensionApplicationID, Data: []byte{0}}, {Type: 0xF001}, {Type: 0xF002}}
	template.Extensions = []keypackage.Extension{{Type: keypackage.ExtensionLastResort}, {Type: 0xF001}}
	kp := build(t, template).KeyPackage()
	want := []keypackage.ExtensionType{0xF002, 0xF001, keypackage.ExtensionLastResort}
	if got := kp.LeafNode.Capabilities.Extensions; !slices.Equal(got, want) {
		t.Errorf("Capabilities.Extensions = %v, want %v: default ones never, others once", got, want)
	}
	if len(template.Capabilities.Extensions) != 1 {
		t.Errorf("NewBuilder() changed its template to %v", template.Capabilities.Extensions)
	}
	if !kp.LastResort() {
		t.Error("LastResort() = false, want true")
	}
}

func TestNewBuilderRefuses(t *testing.T) {
	type template = keypackage.Template
	extension := func(t keypackage.ExtensionType, data ...byte) []keypackage.Extension {
		return []keypackage.Extension{{Type: t, Data: data}}
	}
	for name, test := range map[string]struct {
		change func(*template)
		want   string
	}{
		"no suite":                   {func(t *template) { t.Suite = nil }, "no cipher suite"},
		"an Ed448 suite":             {func(t *template) { t.Suite, _ = ciphersuite.Lookup(4) }, "cannot sign for"},
		"another scheme":             {func(t *template) { t.Suite, _ = ciphersuite.Lookup(7) }, "cannot sign for"},
		"no version":                 {func(t *template) { t.Capabilities.Versions = nil }, "version mls10"},
		"own suite missing":          {func(t *template) { t.Capabilities.CipherSuites = []ciphersuite.ID{1} }, "cipher suite MLS_128_DHKEMP256"},
		"credential type missing":    {func(t *template) { t.Capabilities.Credentials = nil }, "credential type basic"},
		"GREASE credential":          {func(t *template) { t.Credential = keypackage.Credential{Type: 0x0A0A} }, "GREASE 0x0A0A"},
		"default extension listed":   {func(t *template) { t.Capabilities.Extensions = []keypackage.ExtensionType{1} }, "default extension type application_id"},
		"default proposal listed":    {func(t *template) { t.Capabilities.Proposals = []keypackage.ProposalType{7} }, "default proposal type group_context_extensions"},
		"lifetime inverted":          {func(t *template) { t.Lifetime.NotAfter = t.Lifetime.NotBefore }, "not after its start"},
		"extension twice":            {func(t *template) { t.Extensions = slices.Repeat(extension(0xF001), 2) }, "more than once"},
		"extension twice in leaf":    {func(t *template) { t.LeafExtensions = slices.Repeat(extension(0xF001), 2) }, "more than once"},
		"ratchet_tree":               {func(t *template) { t.Extensions = extension(keypackage.ExtensionRatchetTree) }, "may not hold ratchet_tree"},
		"required_capabilities":      {func(t *template) { t.LeafExtensions = extension(keypackage.ExtensionRequiredCapabilities) }, "may not hold required_capabilities"},
		"application_id outside":     {func(t *template) { t.Extensions = extension(keypackage.ExtensionApplicationID, 0) }, "may not hold application_id"},
		"application_id without <V>": {func(t *template) { t.LeafExtensions = extension(keypackage.ExtensionApplicationID, 9) }, "malformed application_id"},
		"last_resort in leaf":        {func(t *template) { t.LeafExtensions = extension(keypackage.ExtensionLastResort) }, "may not hold last_resort"},
		"last_resort with data":      {func(t *template) { t.Extensions = extension(keypackage.ExtensionLastResort, 0) }, "malformed last_resort"},
		"no certificate":             {func(t *template) { t.Credential = keypackage.X509Credential(nil) }, "there are none"},
		"no DER":                     {func(t *template) { t.Credential = keypackage.X509Credential([][]byte{{1}}) }, "certificate 0"},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := newTemplate(suiteOf(t, 2))
			signer := newSigner(t, tmpl.Suite)
			test.change(&tmpl)
			_, err := keypackage.NewBuilder(tmpl, signer)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewBuilder() err = %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestNewBuilderTellsAllFaultsAtOnce(t *testing.T) {
	template := newTemplate(suiteOf(t, 2))
	template.Capabilities = keypackage.Capabilities{}
	template.Lifetime = keypackage.Lifetime{}
	_, err := keypackage.NewBuilder(template, newSigner(t, template.Suite))
	for _, want := range []string{"version mls10", "cipher suite", "credential type", "lifetime"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewBuilder() err = %v, want one with %q", err, want)
		}
	}
}

func newCertificate(tb testing.TB, signer crypto.Signer) []byte {
	tb.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(now, 0).AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func TestX509CredentialMustHaveTheKeyOfTheSigner(t *testing.T) {
	for _, s := range ciphersuite.All() {
		if s.Signature == ciphersuite.ED448 {
			continue // crypto/x509 knows no such certificates
		}
		t.Run(s.Name, func(t *testing.T) {
			signer, other := newSigner(t, s), newSigner(t, s)
			template := newTemplate(s)
			template.Credential = keypackage.X509Credential([][]byte{newCertificate(t, signer), newCertificate(t, other)})
			buildWith(t, template, signer)
			if _, err := keypackage.NewBuilder(template, other); err == nil {
				t.Error("NewBuilder() with another key err = nil, want one")
			}
		})
	}
}

// signerOf is a signer by name only: of its key nothing but the public half is
// there.
type signerOf struct {
	crypto.Signer
	public crypto.PublicKey
}

func (s signerOf) Public() crypto.PublicKey { return s.public }

// A certificate with an Ed448 key, made by openssl, whose key crypto/x509 leaves
// out.
func TestX509CredentialWithAnEd448Key(t *testing.T) {
	der, err := os.ReadFile(filepath.Join("testdata", "ed448-certificate.der"))
	if err != nil {
		t.Fatal(err)
	}
	info := bytes.Index(der, []byte{0x2B, 0x65, 0x71, 0x03, 0x3A, 0x00}) // OID, then the BIT STRING
	key := der[info+6 : info+6+57]
	s := suiteOf(t, 4)
	template := newTemplate(s)
	template.Credential = keypackage.X509Credential([][]byte{der})
	if _, err := keypackage.NewBuilder(template, signerOf{public: ed448.PublicKey(key)}); err != nil {
		t.Errorf("NewBuilder() err = %v, want nil", err)
	}
	if _, err := keypackage.NewBuilder(template, newSigner(t, s)); err == nil {
		t.Error("NewBuilder() with another key err = nil, want one")
	}
}

func TestBuildRefusesKeys(t *testing.T) {
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			signer := newSigner(t, s)
			b, err := keypackage.NewBuilder(newTemplate(s), signer)
			if err != nil {
				t.Fatal(err)
			}
			key, other := newPublicKey(t, s), newPublicKey(t, s)
			_, signatureKey, _ := ciphersuite.MarshalPublicKey(signer.Public())
			for name, keys := range map[string][2][]byte{
				"the same twice":             {key, key},
				"init key too short":         {key[1:], other},
				"encryption key too long":    {key, append(bytes.Clone(other), 0)},
				"no init key":                {nil, other},
				"signature key as HPKE key":  {key, signatureKey},
				"signature key as init key":  {signatureKey, key},
				"init key not on the curve":  {offCurve(s, key), other},
				"other key not on the curve": {key, offCurve(s, other)},
			} {
				if keys[0] == nil && name != "no init key" || keys[1] == nil {
					continue // every string of its length is an X25519 or X448 key
				}
				if _, err := b.Build(rand.Reader, keys[0], keys[1]); err == nil {
					t.Errorf("Build() with %s err = nil, want one", name)
				}
			}
		})
	}
}

// offCurve damages a point, or returns nil where the suite's keys are none.
func offCurve(s *ciphersuite.Suite, key []byte) []byte {
	if s.Signature == ciphersuite.ED25519 || s.Signature == ciphersuite.ED448 {
		return nil
	}
	bad := bytes.Clone(key)
	bad[len(bad)-1] ^= 1
	return bad
}

// faultySigner damages the n-th signature that it makes.
type faultySigner struct {
	crypto.Signer
	n int
}

func (f *faultySigner) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := f.Signer.Sign(rand, message, opts)
	if f.n--; f.n == 0 {
		signature[len(signature)-1] ^= 1
	}
	return signature, err
}

func TestSignatureThatDoesNotVerifyIsTheSignersFault(t *testing.T) {
	for _, s := range ciphersuite.All() {
		for n := 1; n <= 2; n++ {
			b, err := keypackage.NewBuilder(newTemplate(s), &faultySigner{newSigner(t, s), n})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = b.Build(rand.Reader, newPublicKey(t, s), newPublicKey(t, s)); !errors.Is(err, keypackage.ErrSignerFault) {
				t.Errorf("%v: Build() with fault in signature %d err = %v, want %v", s.ID, n, err, keypackage.ErrSignerFault)
			}
		}
	}
}

// swappedSigner says one key and signs with another.
type swappedSigner struct{ says, signs crypto.Signer }

func (s swappedSigner) Public() crypto.PublicKey { return s.says.Public() }
func (s swappedSigner) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.signs.Sign(rand, message, opts)
}

func TestKeySwappedInTheTokenIsFound(t *testing.T) {
	s := suiteOf(t, 2)
	b, err := keypackage.NewBuilder(newTemplate(s), swappedSigner{newSigner(t, s), newSigner(t, s)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(rand.Reader, newPublicKey(t, s), newPublicKey(t, s)); !errors.Is(err, keypackage.ErrSignerFault) {
		t.Errorf("Build() err = %v, want %v", err, keypackage.ErrSignerFault)
	}
}

var errDevice = errors.New("device removed")

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errDevice }

func TestErrorOfTheSignerIsPassedOn(t *testing.T) {
	s := suiteOf(t, 2)
	b, err := keypackage.NewBuilder(newTemplate(s), brokenSigner{newSigner(t, s)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(rand.Reader, newPublicKey(t, s), newPublicKey(t, s))
	if !errors.Is(err, errDevice) || errors.Is(err, keypackage.ErrSignerFault) {
		t.Errorf("Build() err = %v, want %v", err, errDevice)
	}
}

func TestOneBuilderServesManyGoroutines(t *testing.T) {
	s := suiteOf(t, 2)
	b, err := keypackage.NewBuilder(richTemplate(s), newSigner(t, s))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				v, err := b.Build(rand.Reader, newPublicKey(t, s), newPublicKey(t, s))
				if err != nil {
					t.Errorf("Build() err = %v, want nil", err)
					return
				}
				if r := keypackage.Validate(v.KeyPackage(), keypackage.Policy{Now: now}); !r.OK() {
					t.Errorf("Validate() = %v, want no error", r.Findings)
				}
			}
		})
	}
	wg.Wait()
}
