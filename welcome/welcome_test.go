package welcome_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
	"github.com/hsm-kp/hsm-kp/welcome"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// client is a key package with the private key of its init_key.
type client struct {
	kp   *keypackage.KeyPackage
	init *hpke.SecretKey
}

func suite(tb testing.TB) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(2)
	if !ok {
		tb.Fatal("Lookup(2) found nothing")
	}
	return s
}

func newClient(tb testing.TB) client {
	tb.Helper()
	kp, init := welcometest.KeyPackage(tb, suite(tb), keypackagetest.NewSigner(tb, suite(tb)))
	return client{kp, init}
}

func newGroup(tb testing.TB) *welcometest.Group {
	tb.Helper()
	return welcometest.NewGroup(tb, suite(tb))
}

func TestOpen(t *testing.T) {
	g := newGroup(t)
	g.Path = append([]byte{1}, wire.AppendVector(nil, []byte("path secret"))...)
	alice, bob := newClient(t), newClient(t)
	w := g.Welcome(alice.kp, bob.kp)
	for _, c := range []client{alice, bob} {
		opened, err := welcome.Open(w, c.kp, c.init, welcome.Options{})
		if err != nil {
			t.Fatalf("Open() err = %v, want nil", err)
		}
		if string(opened.GroupInfo.GroupContext.GroupID) != "group" || opened.GroupInfo.GroupContext.Epoch != 5 || !opened.SignatureVerified {
			t.Errorf("Open() = %+v, want the group at epoch 5, and its signature verified", opened)
		}
		if !bytes.Equal(opened.JoinerSecret, g.Joiner) || string(opened.PathSecret) != "path secret" || len(opened.EpochAuthenticator) != 32 {
			t.Errorf("Open() = %+v, want the group's secrets", opened)
		}
		opened.Clear()
		if !bytes.Equal(opened.JoinerSecret, make([]byte, 32)) || opened.PathSecret[0] != 0 {
			t.Error("Clear() left secrets")
		}
	}
	if _, err := welcome.Open(w, newClient(t).kp, alice.init, welcome.Options{}); !errors.Is(err, welcome.ErrNotForIt) {
		t.Errorf("Open() for another key package err = %v, want ErrNotForIt", err)
	}
}

// GroupSecrets returns what was encrypted, byte by byte. tests/vectors has cases with PSKs.
func TestGroupSecretsAreAsTheyWereEncrypted(t *testing.T) {
	for name, path := range map[string][]byte{"no path": {0}, "an empty path": {1, 0}, "a path": []byte("\x01\x03pth")} {
		g, alice := newGroup(t), newClient(t)
		g.Path = path
		want := append(append(wire.AppendVector(nil, g.Joiner), path...), 0)
		opened, err := welcome.Open(g.Welcome(alice.kp), alice.kp, alice.init, welcome.Options{})
		if err != nil {
			t.Fatalf("%s: Open() err = %v, want nil", name, err)
		}
		if got := opened.GroupSecrets(); !bytes.Equal(got, want) {
			t.Errorf("%s: GroupSecrets() = %x, want %x", name, got, want)
		}
	}
}

func TestOpenedPrintsRedacted(t *testing.T) {
	opened := &welcome.Opened{JoinerSecret: []byte("joiner"), PathSecret: []byte("path"), EpochAuthenticator: []byte("epoch")}
	for _, value := range []any{opened, *opened} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			if got := fmt.Sprintf(verb, value); got != "REDACTED" {
				t.Errorf("Sprintf(%q, %T) = %s, want REDACTED", verb, value, got)
			}
		}
		if got, err := json.Marshal(value); string(got) != `"REDACTED"` || err != nil {
			t.Errorf("Marshal(%T) = %s, %v, want REDACTED", value, got, err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("opened", "welcome", value)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("opened", "welcome", value)
		if got := log.String(); strings.Count(got, "REDACTED") != 2 {
			t.Errorf("slog of %T = %s, want REDACTED twice", value, got)
		}
	}
}

func TestEverySuite(t *testing.T) {
	for _, s := range ciphersuite.All() {
		kp, init := welcometest.KeyPackage(t, s, keypackagetest.NewSigner(t, s))
		opened, err := welcome.Open(welcometest.NewGroup(t, s).Welcome(kp), kp, init, welcome.Options{})
		if err != nil || !opened.SignatureVerified || len(opened.EpochAuthenticator) != s.Nh {
			t.Errorf("%v: Open() = %+v, %v, want the epoch", s.ID, opened, err)
		}
	}
}

func TestTheTreeMayComeFromElsewhere(t *testing.T) {
	g := newGroup(t)
	tree := g.Info.Extensions[0].Data
	g.Info.Extensions = nil
	c := newClient(t)
	w := g.Welcome(c.kp)
	opened, err := welcome.Open(w, c.kp, c.init, welcome.Options{})
	if err != nil || opened.SignatureVerified {
		t.Errorf("Open() without a tree = %+v, %v, want it opened and not verified", opened, err)
	}
	opened, err = welcome.Open(w, c.kp, c.init, welcome.Options{RatchetTree: tree})
	if err != nil || !opened.SignatureVerified {
		t.Errorf("Open() with the tree = %+v, %v, want it verified", opened, err)
	}
	other := newGroup(t).Info.Extensions[0].Data
	if _, err := welcome.Open(w, c.kp, c.init, welcome.Options{RatchetTree: other}); !errors.Is(err, welcome.ErrSignature) {
		t.Errorf("Open() with another tree err = %v, want ErrSignature", err)
	}
	for _, bad := range [][]byte{{}, {1}, {1, 2}, {2, 1, 3}, {2, 1, 2}} {
		if _, err := welcome.Open(w, c.kp, c.init, welcome.Options{RatchetTree: bad}); !errors.Is(err, welcome.ErrForged) && !errors.Is(err, welcome.ErrSignature) {
			t.Errorf("Open() with the tree %x err = %v, want ErrForged", bad, err)
		}
	}
}

// A faulty Welcome gives the right error and never secrets.
func TestForged(t *testing.T) {
	c := newClient(t)
	for name, test := range map[string]struct {
		group  func(*welcometest.Group)
		change func(*keypackage.Welcome)
		want   error
	}{
		"secrets of another":     {change: func(w *keypackage.Welcome) { w.Secrets[0].Ciphertext[3] ^= 1 }, want: welcome.ErrForged},
		"KEM output cut":         {change: func(w *keypackage.Welcome) { w.Secrets[0].KEMOutput = w.Secrets[0].KEMOutput[1:] }, want: welcome.ErrForged},
		"no KEM output":          {change: func(w *keypackage.Welcome) { w.Secrets[0].KEMOutput = nil }, want: welcome.ErrForged},
		"GroupInfo changed":      {change: func(w *keypackage.Welcome) { w.EncryptedGroupInfo[0] ^= 1 }, want: welcome.ErrForged},
		"GroupInfo cut":          {change: func(w *keypackage.Welcome) { w.EncryptedGroupInfo = w.EncryptedGroupInfo[:4] }, want: welcome.ErrForged},
		"another suite":          {change: func(w *keypackage.Welcome) { w.CipherSuite = 1 }, want: welcome.ErrSuite},
		"group of another suite": {group: func(g *welcometest.Group) { g.Info.GroupContext.CipherSuite = 5 }, want: welcome.ErrForged},
		"another version":        {group: func(g *welcometest.Group) { g.Info.GroupContext.Version = 2 }, want: welcome.ErrForged},
		"malformed secrets":      {group: func(g *welcometest.Group) { g.Path = []byte{2} }, want: welcome.ErrForged},
		"unknown type of PSK":    {group: func(g *welcometest.Group) { g.PSKs = []byte{3, 0} }, want: welcome.ErrForged},
		"successor of two groups": {group: func(g *welcometest.Group) {
			one := append([]byte{2, 2, 1, 'g'}, make([]byte, 8)...) // resumption, reinit, group, epoch
			one = append(one, 1, 'n')
			two := append([]byte{2, 3}, one[2:]...) // branch
			g.PSKs = append(one, two...)
		}, want: welcome.ErrForged},
		"tag of another epoch": {group: func(g *welcometest.Group) { g.Spoil = func(i *keypackage.GroupInfo) { i.ConfirmationTag[0] ^= 1 } }, want: welcome.ErrConfirmation},
		"no tag":               {group: func(g *welcometest.Group) { g.Spoil = func(i *keypackage.GroupInfo) { i.ConfirmationTag = nil } }, want: welcome.ErrConfirmation},
		"another transcript": {group: func(g *welcometest.Group) {
			g.Spoil = func(i *keypackage.GroupInfo) { i.GroupContext.ConfirmedTranscriptHash[0] ^= 1 }
		}, want: welcome.ErrConfirmation},
		"another epoch":           {group: func(g *welcometest.Group) { g.Spoil = func(i *keypackage.GroupInfo) { i.GroupContext.Epoch++ } }, want: welcome.ErrConfirmation},
		"signature of a stranger": {group: func(g *welcometest.Group) { g.Signer = keypackagetest.NewSigner(t, g.Suite) }, want: welcome.ErrSignature},
		"signer who is not there": {group: func(g *welcometest.Group) { g.Info.Signer = 9 }, want: welcome.ErrSignature},
		"signer far away":         {group: func(g *welcometest.Group) { g.Info.Signer = 1<<32 - 1 }, want: welcome.ErrSignature},
		"psk secret of others":    {group: func(g *welcometest.Group) { g.PSKSecret = bytes.Repeat([]byte{1}, 32) }, want: welcome.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t)
			if test.group != nil {
				test.group(g)
			}
			w := g.Welcome(c.kp)
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
	g.PSKs = append(external, resumption...)
	c := newClient(t)
	w := g.Welcome(c.kp)
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
	c := newClient(t)
	w := newGroup(t).Welcome(c.kp)
	c.init.Clear()
	if _, err := welcome.Open(w, c.kp, c.init, welcome.Options{}); !errors.Is(err, hpke.ErrCleared) {
		t.Errorf("Open() err = %v, want ErrCleared", err)
	}
}

func FuzzOpen(f *testing.F) {
	c := newClient(f)
	w := newGroup(f).Welcome(c.kp)
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
