package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// members are identities of one installation of hsm-kp, two for each suite: one whose key was generated in
// the token and never left it, and one whose key was made outside and imported, for peers that cannot
// request a signature from outside.
type members struct {
	t       *testing.T
	program *program.Installation
	// imported has the signature private keys of the second kind.
	imported map[uint16][]byte
	token    *token.Token
	keys     map[uint16]*signer.Key
}

func newMembers(t *testing.T) *members {
	t.Helper()
	m := &members{t: t, program: program.Install(t), imported: make(map[uint16][]byte), keys: make(map[uint16]*signer.Key)}
	enableExperiments(t, m.program)
	m.program.Run("wrap-key", "create", "--purpose", "wrap")
	suites := ciphersuite.All()
	for _, s := range suites {
		number := fmt.Sprint(uint16(s.ID))
		m.program.Run("identity", "create", inToken(uint16(s.ID)), "--suite", number)
		m.imported[uint16(s.ID)] = m.importKey(s)
		m.program.Run("identity", "create", imported(uint16(s.ID)), "--suite", number, "--key-label", imported(uint16(s.ID)), "--allow-weak-key")
	}
	m.login(suites)
	return m
}

// inToken and imported return names of identities in a form that core-crypto accepts for a client.
func inToken(suite uint16) string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012d:1@hsm.example", suite)
}
func imported(suite uint16) string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012d:2@hsm.example", suite)
}

// login logs in to the installation's token from this process, which signs for
// the peers.
func (m *members) login(suites []*ciphersuite.Suite) {
	m.t.Helper()
	c, err := config.Load(filepath.Join(m.program.Dir, "hsm-kp.yaml"))
	if err != nil {
		m.t.Fatal(err)
	}
	for name, value := range c.Token.Environment {
		m.t.Setenv(name, value)
	}
	m.token, err = token.Open(m.t.Context(), token.Config{
		Module: c.Token.Module, Label: c.Token.Label, PIN: token.File(c.Token.PIN.File), Sessions: 2,
	})
	if err != nil {
		m.t.Fatalf("Open() err = %v, want nil", err)
	}
	m.t.Cleanup(func() { m.token.Close() })
	for _, s := range suites {
		q := token.KeyQuery{Label: "hsm-kp identity " + inToken(uint16(s.ID))}
		if m.keys[uint16(s.ID)], err = signer.Find(m.t.Context(), m.token, q); err != nil {
			m.t.Fatalf("Find(%v) err = %v, want nil", q, err)
		}
	}
}

// sign signs an encoded SignContent (RFC 9420, Section 5.1.2) in the token.
func (m *members) sign(suite uint16, content []byte) ([]byte, error) {
	key, ok := m.keys[suite]
	if !ok {
		return nil, fmt.Errorf("no key for suite %d", suite)
	}
	r := wire.NewReader(content)
	label, body := r.Vector(), r.Vector()
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse SignContent: %w", err)
	}
	bare, ok := strings.CutPrefix(string(label), "MLS 1.0 ")
	if !ok {
		return nil, errors.New("the label is not one of MLS 1.0")
	}
	return key.Scheme().SignWithLabel(rand.Reader, key, bare, body)
}

// open lets a peer add a key package in each custody that the suite has, and opens its Welcome with hsm-kp,
// which must see the same epoch. The key package is consumed.
func (m *members) open(founder *peer, suite uint16) error {
	custodies := []string{vault.CustodyWrapped}
	if s, ok := ciphersuite.Lookup(ciphersuite.ID(suite)); ok && vault.Keepable(s) == nil {
		custodies = append(custodies, vault.CustodyToken)
	}
	var faults []error
	for _, custody := range custodies {
		if err := m.openIn(custody, founder, suite); err != nil {
			faults = append(faults, fmt.Errorf("custody %s: %w", custody, err))
		}
	}
	if len(faults) > 0 && len(faults) < len(custodies) {
		faults = append(faults, errors.New("the custodies differ"))
	}
	return errors.Join(faults...)
}

func (m *members) openIn(custody string, founder *peer, suite uint16) error {
	ref := m.program.Generate(inToken(suite), "1", "--custody", custody)[0]
	added, err := founder.call(request{Op: "add", Suite: suite, KeyPackage: append([]byte{0, 1, 0, 5}, m.program.Public(ref)...)})
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	path := filepath.Join(m.t.TempDir(), "welcome.mls")
	if err := os.WriteFile(path, added.Welcome, 0o600); err != nil {
		return err
	}
	out, err := m.program.Command("welcome", "open", "--consume", "--json", path).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return err
	}
	var opened struct {
		EpochAuthenticator octets `json:"epoch_authenticator"`
		SignatureVerified  bool   `json:"signature_verified"`
	}
	if err := json.Unmarshal(out, &opened); err != nil {
		return err
	}
	if len(added.RatchetTree) == 0 && !opened.SignatureVerified {
		return errors.New("the signature of the GroupInfo was not verified")
	}
	return sameEpoch(reply{EpochAuthenticator: opened.EpochAuthenticator}, added)
}

// keyPackage is a key package of ours with the private keys that unwrap returns.
type keyPackage struct {
	message, init, encryption octets
	signature                 octets // only of an imported key
}

// generate makes a key package for a joiner.
func (m *members) generate(suite uint16, external bool) keyPackage {
	m.t.Helper()
	name := inToken(suite)
	if !external {
		name = imported(suite)
	}
	u := m.program.Unwrap(m.program.Generate(name, "1")[0])
	kp := keyPackage{
		message:    append([]byte{0, 1, 0, 5}, m.bytes(u.EncodedKeyPackage)...),
		init:       m.bytes(u.InitKey),
		encryption: m.bytes(u.EncryptionKey),
	}
	if !external {
		kp.signature = m.imported[suite]
	}
	return kp
}

func (m *members) bytes(text string) []byte {
	m.t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// importKey makes a signature key and imports it into the token. It returns the private key in the form
// that peers accept.
func (m *members) importKey(s *ciphersuite.Suite) []byte {
	m.t.Helper()
	private, pkcs8 := newKey(m.t, s.Signature)
	path := filepath.Join(m.t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		m.t.Fatal(err)
	}
	pin, err := os.ReadFile(filepath.Join(m.program.Dir, "pin"))
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := config.Load(filepath.Join(m.program.Dir, "hsm-kp.yaml"))
	if err != nil {
		m.t.Fatal(err)
	}
	util := exec.Command("softhsm2-util", "--import", path, "--token", c.Token.Label, "--pin", strings.TrimSpace(string(pin)),
		"--label", imported(uint16(s.ID)), "--id", fmt.Sprintf("A1%02X", uint16(s.ID)&0xFF))
	util.Env = append(os.Environ(), "SOFTHSM2_CONF="+c.Token.Environment["SOFTHSM2_CONF"])
	if out, err := util.CombinedOutput(); err != nil {
		m.t.Fatalf("softhsm2-util --import a key of %v: %v\n%s", s.Signature, err, out)
	}
	return private
}

// newKey makes a key of the scheme, and returns it in the form for peers and in PKCS #8.
func newKey(t *testing.T, scheme ciphersuite.SignatureScheme) (private, pkcs8 []byte) {
	t.Helper()
	var key crypto.PrivateKey
	var err error
	switch scheme {
	case ciphersuite.ED25519:
		_, k, e := ed25519.GenerateKey(rand.Reader)
		private, key, err = k.Seed(), k, e
	case ciphersuite.ED448:
		_, k, e := ed448.GenerateKey(rand.Reader)
		if e != nil {
			t.Fatal(e)
		}
		return k.Seed(), pkcs8Ed448(t, k.Seed())
	default:
		k, e := ecdsa.GenerateKey(curves[scheme], rand.Reader)
		if e != nil {
			t.Fatal(e)
		}
		key = k
		private, err = k.Bytes()
	}
	if err == nil {
		pkcs8, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return private, pkcs8
}

var curves = map[ciphersuite.SignatureScheme]elliptic.Curve{
	ciphersuite.ECDSA_SECP256R1_SHA256: elliptic.P256(),
	ciphersuite.ECDSA_SECP384R1_SHA384: elliptic.P384(),
	ciphersuite.ECDSA_SECP521R1_SHA512: elliptic.P521(),
}

// pkcs8Ed448 encodes a OneAsymmetricKey (RFC 8410, Section 7), which crypto/x509
// cannot do for Ed448.
func pkcs8Ed448(t *testing.T, seed []byte) []byte {
	t.Helper()
	inner, err := asn1.Marshal(seed)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version    int
		Algorithm  pkix.AlgorithmIdentifier
		PrivateKey []byte
	}{0, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 113}}, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
