package welcome_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
	"github.com/hsm-kp/hsm-kp/wire"
)

// group makes Welcomes as the founder of a group does, with the sender's half of
// RFC 9420, Sections 8 and 12.4.3. That it is the right half, the official vectors say
// in tests/vectors, which package welcome opens.
type group struct {
	t         testing.TB
	suite     *ciphersuite.Suite
	signer    crypto.Signer
	info      keypackage.GroupInfo
	joiner    []byte
	psks      []byte // encoded PreSharedKeyIDs
	pskSecret []byte
	path      []byte // optional<PathSecret>
	// spoil changes a GroupInfo after its tag was made, before it is signed.
	spoil func(*keypackage.GroupInfo)
}

// client is a key package with the private key of its init_key.
type client struct {
	kp   *keypackage.KeyPackage
	init *hpke.SecretKey
}

func suite(t testing.TB) *ciphersuite.Suite {
	t.Helper()
	s, ok := ciphersuite.Lookup(2)
	if !ok {
		t.Fatal("Lookup(2) found nothing")
	}
	return s
}

func newSigner(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newClient(t testing.TB, signer crypto.Signer) client {
	t.Helper()
	s := suite(t)
	b, err := keypackage.NewBuilder(keypackage.Template{
		Suite: s, Credential: keypackage.BasicCredential([]byte("alice")), Capabilities: keypackage.DefaultCapabilities(s),
		Lifetime: keypackage.Lifetime{NotBefore: 1, NotAfter: 2},
	}, signer)
	if err != nil {
		t.Fatal(err)
	}
	var keys [2]*hpke.SecretKey
	for i := range keys {
		if keys[i], err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.Build(rand.Reader, keys[0].PublicKey(), keys[1].PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return client{v.KeyPackage(), keys[0]}
}

// newGroup has a founder at leaf 0 whose leaf node is in the ratchet_tree.
func newGroup(t testing.TB) *group {
	t.Helper()
	signer := newSigner(t)
	founder := newClient(t, signer)
	nodes := append([]byte{1, 1}, founder.kp.LeafNode.Bytes()...) // present, leaf
	g := &group{
		t: t, suite: suite(t), signer: signer, joiner: bytes.Repeat([]byte{7}, 32), pskSecret: make([]byte, 32), path: []byte{0},
		info: keypackage.GroupInfo{
			GroupContext: keypackage.GroupContext{
				Version: keypackage.MLS10, CipherSuite: 2, GroupID: []byte("group"), Epoch: 5,
				TreeHash: []byte("tree hash"), ConfirmedTranscriptHash: []byte("transcript"),
			},
			Extensions: []keypackage.Extension{{Type: keypackage.ExtensionRatchetTree, Data: wire.AppendVector(nil, nodes)}},
		},
	}
	return g
}

func (g *group) do(b []byte, err error) []byte {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

// welcome adds clients.
func (g *group) welcome(clients ...client) *keypackage.Welcome {
	g.t.Helper()
	s := g.suite
	intermediate := g.do(s.Extract(g.joiner, g.pskSecret))
	epoch := g.do(s.ExpandWithLabel(intermediate, "epoch", g.info.GroupContext.Bytes(), s.Nh))
	mac := hmac.New(s.Hash.New, g.do(s.DeriveSecret(epoch, "confirm")))
	mac.Write(g.info.GroupContext.ConfirmedTranscriptHash)
	info := g.info
	info.ConfirmationTag = mac.Sum(nil)
	if g.spoil != nil {
		g.spoil(&info)
	}
	unsigned := info.Bytes()
	info.Signature = g.do(s.Signature.SignWithLabel(rand.Reader, g.signer, "GroupInfoTBS", unsigned[:len(unsigned)-1]))

	secret := g.do(s.DeriveSecret(intermediate, "welcome"))
	aead, err := s.NewAEAD(g.do(s.ExpandWithLabel(secret, "key", nil, s.Nk)))
	if err != nil {
		g.t.Fatal(err)
	}
	w := &keypackage.Welcome{CipherSuite: s.ID}
	w.EncryptedGroupInfo = aead.Seal(nil, g.do(s.ExpandWithLabel(secret, "nonce", nil, s.Nn)), info.Bytes(), nil)
	secrets := append(wire.AppendVector(nil, g.joiner), g.path...)
	secrets = wire.AppendVector(secrets, g.psks)
	for _, c := range clients {
		ref, err := c.kp.Ref()
		if err != nil {
			g.t.Fatal(err)
		}
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, c.kp.InitKey, "Welcome", w.EncryptedGroupInfo, secrets)
		if err != nil {
			g.t.Fatal(err)
		}
		w.Secrets = append(w.Secrets, keypackage.EncryptedGroupSecrets{NewMember: ref, KEMOutput: kemOutput, Ciphertext: ciphertext})
	}
	return w
}

func TestOpen(t *testing.T) {
	g := newGroup(t)
	g.path = append([]byte{1}, wire.AppendVector(nil, []byte("path secret"))...)
	alice, bob := newClient(t, newSigner(t)), newClient(t, newSigner(t))
	w := g.welcome(alice, bob)
	for _, c := range []client{alice, bob} {
		opened, err := welcome.Open(w, c.kp, c.init, welcome.Options{})
		if err != nil {
			t.Fatalf("Open() err = %v, want nil", err)
		}
		if string(opened.GroupInfo.GroupContext.GroupID) != "group" || opened.GroupInfo.GroupContext.Epoch != 5 || !opened.SignatureVerified {
			t.Errorf("Open() = %+v, want the group at epoch 5, and its signature verified", opened)
		}
		if !bytes.Equal(opened.JoinerSecret, g.joiner) || string(opened.PathSecret) != "path secret" || len(opened.EpochAuthenticator) != 32 {
			t.Errorf("Open() = %+v, want the group's secrets", opened)
		}
		opened.Clear()
		if !bytes.Equal(opened.JoinerSecret, make([]byte, 32)) || opened.PathSecret[0] != 0 {
			t.Error("Clear() left secrets")
		}
	}
	if _, err := welcome.Open(w, newClient(t, newSigner(t)).kp, alice.init, welcome.Options{}); !errors.Is(err, welcome.ErrNotForIt) {
		t.Errorf("Open() for another key package err = %v, want ErrNotForIt", err)
	}
}

func TestTheTreeMayComeFromElsewhere(t *testing.T) {
	g := newGroup(t)
	tree := g.info.Extensions[0].Data
	g.info.Extensions = nil
	c := newClient(t, newSigner(t))
	w := g.welcome(c)
	opened, err := welcome.Open(w, c.kp, c.init, welcome.Options{})
	if err != nil || opened.SignatureVerified {
		t.Errorf("Open() without a tree = %+v, %v, want it opened and not verified", opened, err)
	}
	opened, err = welcome.Open(w, c.kp, c.init, welcome.Options{RatchetTree: tree})
	if err != nil || !opened.SignatureVerified {
		t.Errorf("Open() with the tree = %+v, %v, want it verified", opened, err)
	}
	other := newGroup(t).info.Extensions[0].Data
	if _, err := welcome.Open(w, c.kp, c.init, welcome.Options{RatchetTree: other}); !errors.Is(err, welcome.ErrSignature) {
		t.Errorf("Open() with another tree err = %v, want ErrSignature", err)
	}
	for _, bad := range [][]byte{{}, {1}, {1, 2}, {2, 1, 3}, {2, 1, 2}} {
		if _, err := welcome.Open(w, c.kp, c.init, welcome.Options{RatchetTree: bad}); !errors.Is(err, welcome.ErrForged) && !errors.Is(err, welcome.ErrSignature) {
			t.Errorf("Open() with the tree %x err = %v, want ErrForged", bad, err)
		}
	}
}

// What is wrong with a Welcome ends in an error that says so, and never in secrets.
func TestForged(t *testing.T) {
	c := newClient(t, newSigner(t))
	for name, test := range map[string]struct {
		group  func(*group)
		change func(*keypackage.Welcome)
		want   error
	}{
		"secrets of another":     {change: func(w *keypackage.Welcome) { w.Secrets[0].Ciphertext[3] ^= 1 }, want: welcome.ErrForged},
		"KEM output cut":         {change: func(w *keypackage.Welcome) { w.Secrets[0].KEMOutput = w.Secrets[0].KEMOutput[1:] }, want: welcome.ErrForged},
		"no KEM output":          {change: func(w *keypackage.Welcome) { w.Secrets[0].KEMOutput = nil }, want: welcome.ErrForged},
		"GroupInfo changed":      {change: func(w *keypackage.Welcome) { w.EncryptedGroupInfo[0] ^= 1 }, want: welcome.ErrForged},
		"GroupInfo cut":          {change: func(w *keypackage.Welcome) { w.EncryptedGroupInfo = w.EncryptedGroupInfo[:4] }, want: welcome.ErrForged},
		"another suite":          {change: func(w *keypackage.Welcome) { w.CipherSuite = 1 }, want: welcome.ErrSuite},
		"group of another suite": {group: func(g *group) { g.info.GroupContext.CipherSuite = 5 }, want: welcome.ErrForged},
		"another version":        {group: func(g *group) { g.info.GroupContext.Version = 2 }, want: welcome.ErrForged},
		"malformed secrets":      {group: func(g *group) { g.path = []byte{2} }, want: welcome.ErrForged},
		"unknown type of PSK":    {group: func(g *group) { g.psks = []byte{3, 0} }, want: welcome.ErrForged},
		"tag of another epoch":   {group: func(g *group) { g.spoil = func(i *keypackage.GroupInfo) { i.ConfirmationTag[0] ^= 1 } }, want: welcome.ErrConfirmation},
		"no tag":                 {group: func(g *group) { g.spoil = func(i *keypackage.GroupInfo) { i.ConfirmationTag = nil } }, want: welcome.ErrConfirmation},
		"another transcript": {group: func(g *group) {
			g.spoil = func(i *keypackage.GroupInfo) { i.GroupContext.ConfirmedTranscriptHash[0] ^= 1 }
		}, want: welcome.ErrConfirmation},
		"another epoch":           {group: func(g *group) { g.spoil = func(i *keypackage.GroupInfo) { i.GroupContext.Epoch++ } }, want: welcome.ErrConfirmation},
		"signature of a stranger": {group: func(g *group) { g.signer = newSigner(g.t) }, want: welcome.ErrSignature},
		"signer who is not there": {group: func(g *group) { g.info.Signer = 9 }, want: welcome.ErrSignature},
		"signer far away":         {group: func(g *group) { g.info.Signer = 1<<32 - 1 }, want: welcome.ErrSignature},
		"psk secret of others":    {group: func(g *group) { g.pskSecret = bytes.Repeat([]byte{1}, 32) }, want: welcome.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t)
			if test.group != nil {
				test.group(g)
			}
			w := g.welcome(c)
			if test.change != nil {
				test.change(w)
			}
			opened, err := welcome.Open(w, c.kp, c.init, welcome.Options{})
			if opened != nil || !errors.Is(err, test.want) {
				t.Errorf("Open() = %+v, %v, want %v", opened, err, test.want)
			}
		})
	}
}

func TestPSKs(t *testing.T) {
	g := newGroup(t)
	external := append([]byte{1}, append(wire.AppendVector(nil, []byte("psk id")), wire.AppendVector(nil, []byte("nonce"))...)...)
	resumption := append([]byte{2, 1}, wire.AppendVector(nil, []byte("old group"))...)
	resumption = binary.BigEndian.AppendUint64(resumption, 9)
	resumption = append(resumption, wire.AppendVector(nil, []byte("nonce"))...)
	g.psks = append(external, resumption...)
	c := newClient(t, newSigner(t))
	w := g.welcome(c)
	_, err := welcome.Open(w, c.kp, c.init, welcome.Options{PSK: func(id welcome.PSKID) ([]byte, bool) {
		return []byte("secret"), id.Type == welcome.PSKExternal
	}})
	e, ok := errors.AsType[*welcome.MissingPSKError](err)
	if !ok || len(e.Missing) != 1 || !strings.Contains(err.Error(), "resumption of group 6f6c642067726f7570 at epoch 9") {
		t.Errorf("Open() err = %v, want a *MissingPSKError that names the resumption PSK", err)
	}
	// Wrong PSKs derive another epoch, in which the GroupInfo does not decrypt.
	_, err = welcome.Open(w, c.kp, c.init, welcome.Options{PSK: func(welcome.PSKID) ([]byte, bool) { return []byte("wrong"), true }})
	if !errors.Is(err, welcome.ErrForged) {
		t.Errorf("Open() with wrong PSKs err = %v, want ErrForged", err)
	}
}

func TestAClearedKeyOpensNothing(t *testing.T) {
	c := newClient(t, newSigner(t))
	w := newGroup(t).welcome(c)
	c.init.Clear()
	if _, err := welcome.Open(w, c.kp, c.init, welcome.Options{}); !errors.Is(err, hpke.ErrCleared) {
		t.Errorf("Open() err = %v, want ErrCleared", err)
	}
}

func FuzzOpen(f *testing.F) {
	c := newClient(f, newSigner(f))
	w := newGroup(f).welcome(c)
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := keypackage.ParseWelcome(b)
		if err != nil {
			return
		}
		if opened, err := welcome.Open(w, c.kp, c.init, welcome.Options{}); (opened == nil) != (err != nil) {
			t.Errorf("Open() = %v, %v", opened, err)
		}
	})
}
