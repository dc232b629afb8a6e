package audit_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// Frozen verifier keys of newKeys, and notes over frozenCheckpoint: auditors hold both forever.
var frozenNotes = map[string]struct{ vkey, signature string }{
	"Ed25519": {
		vkey:      origin + "+ed8df1ff+AdYvAWoe/R5P33k+tCzYRHHhup8M8E0Sh7XMcfYWKHy4",
		signature: "7Y3x/6k0os4QUrfij7gZQ+rH3lBHGlrXQ6oahvy8OR+eZ+utDhzbH6JaLfUnuHvMYvorPo4aUl7lzGrdSvkD3nmMeww=",
	},
	"ECDSA P-256": {
		vkey:      origin + "+4ddaf8eb+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCCMAZZVygwXLI/Slbmia7gRKgdAHlSxH2nWArhjfPnyRLkrPDClGQgrEnqcu6M8t7AJ5DkA9AtTtLn2btdATdo=",
		signature: "Tdr46zBFAiEA3ejttdlmokH80UHZ1oVgOakzyXtqJg39e9gVzJMrnrUCIACCmtJsnlJbENxmEN+RRtMUWK5UqTTMFVxTVIqnsrit",
	},
}

func frozenNote(kind string) []byte {
	return []byte(frozenCheckpoint + "\n— " + origin + " " + frozenNotes[kind].signature + "\n")
}

func TestNotesAndVerifierKeysAreFrozen(t *testing.T) {
	want := newTrail(13, nil).checkpoint(13)
	for kind, key := range newKeys(t) {
		t.Run(kind, func(t *testing.T) {
			vkey := verifierKey(t, origin, key)
			wantEqual(t, "VerifierKey()", vkey, frozenNotes[kind].vkey)
			got, err := audit.Open(frozenNote(kind), vkey)
			if err != nil {
				t.Fatalf("Open() err = %v, want nil", err)
			}
			wantEqual(t, "Open()", got, want)
		})
	}
	wantEqual(t, "Sign()", string(sign(t, want, newKeys(t)["Ed25519"])), string(frozenNote("Ed25519")))
}

func TestWhatIsSignedOpens(t *testing.T) {
	for kind, key := range newKeys(t) {
		t.Run(kind, func(t *testing.T) {
			for _, n := range []int{0, 1, 13} {
				want := newTrail(n, nil).checkpoint(n)
				got, err := audit.Open(sign(t, want, key), verifierKey(t, origin, key))
				if err != nil {
					t.Fatalf("Open() err = %v, want nil", err)
				}
				wantEqual(t, "Open()", got, want)
			}
		})
	}
}

// Other programs must be able to open a checkpoint; this one was written by another program.
func TestModOpensEd25519Notes(t *testing.T) {
	key := newKeys(t)["Ed25519"]
	vkey := verifierKey(t, origin, key)
	want, err := note.NewEd25519VerifierKey(origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "VerifierKey()", vkey, want)
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatalf("NewVerifier() err = %v, want nil", err)
	}
	c := newTrail(13, nil).checkpoint(13)
	n, err := note.Open(sign(t, c, key), note.VerifierList(verifier))
	if err != nil {
		t.Fatalf("note.Open() err = %v, want nil", err)
	}
	wantEqual(t, "text", n.Text, c.Text())
}

func TestWhatModSignsOpens(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	want := newTrail(13, nil).checkpoint(13)
	signed, err := note.Sign(&note.Note{Text: want.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := audit.Open(signed, vkey)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	wantEqual(t, "Open()", got, want)
}

// The bytes of an ECDSA note, built from the documentation instead of the program.
func TestECDSANotesAreWhatTheirDocumentationSays(t *testing.T) {
	key := newKeys(t)["ECDSA P-256"]
	public := key.Public().(*ecdsa.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(spki)
	want := fmt.Sprintf("%s+%x+%s", origin, id[:4], base64.StdEncoding.EncodeToString(append([]byte{2}, spki...)))
	wantEqual(t, "VerifierKey()", verifierKey(t, origin, key), want)

	c := newTrail(13, nil).checkpoint(13)
	line, ok := bytes.CutPrefix(sign(t, c, key), []byte(c.Text()+"\n— "+origin+" "))
	if !ok {
		t.Fatal("Sign() does not begin with the text and the name")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(string(line), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "key ID", raw[:4], id[:4])
	digest := sha256.Sum256([]byte(c.Text()))
	if !ecdsa.VerifyASN1(public, digest[:], raw[4:]) {
		t.Error("VerifyASN1() = false, want true")
	}
}

func TestSignaturesOfOthersArePassedOver(t *testing.T) {
	keys := newKeys(t)
	want := newTrail(13, nil).checkpoint(13)
	signed := string(sign(t, want, keys["Ed25519"]))
	_, own, _ := strings.Cut(signed, "\n\n")
	_, second, _ := strings.Cut(string(sign(t, want, keys["ECDSA P-256"])), "\n\n")
	unknown := "— witness.example " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{4}, 76)) + "\n"
	both := want.Text() + "\n" + unknown + own + second
	for kind, key := range keys {
		got, err := audit.Open([]byte(both), verifierKey(t, origin, key))
		if err != nil {
			t.Errorf("Open() with the %s key err = %v, want nil", kind, err)
		}
		wantEqual(t, "Open()", got, want)
	}
}

func TestNobodyElseSigns(t *testing.T) {
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := newTrail(13, nil).checkpoint(13)
	for kind, key := range newKeys(t) {
		t.Run(kind, func(t *testing.T) {
			vkey := verifierKey(t, origin, key)
			if _, err := audit.Open(sign(t, c, stranger), vkey); !errors.Is(err, audit.ErrSignature) {
				t.Errorf("Open() of a stranger's note err = %v, want %v", err, audit.ErrSignature)
			}
			other := verifierKey(t, "other.example", key)
			if _, err := audit.Open(sign(t, c, key), other); !errors.Is(err, audit.ErrSignature) {
				t.Errorf("Open() under another name err = %v, want %v", err, audit.ErrSignature)
			}
		})
	}
}

func TestANoteWithAnyBitFlippedDoesNotOpen(t *testing.T) {
	for kind, key := range newKeys(t) {
		t.Run(kind, func(t *testing.T) {
			vkey := verifierKey(t, origin, key)
			signed := frozenNote(kind)
			want, err := audit.Open(signed, vkey)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 8 * len(signed) {
				flipped := bytes.Clone(signed)
				flipped[i/8] ^= 1 << (i % 8)
				// The last bits of base64 may have any value: the signed bytes are the same.
				if got, err := audit.Open(flipped, vkey); err == nil && (got != want || i/8 < len(want.Text())) {
					t.Errorf("Open() with bit %d flipped err = nil, want an error", i)
				}
			}
			for n := range signed {
				if _, err := audit.Open(signed[:n], vkey); err == nil {
					t.Errorf("Open() of the first %d bytes err = nil, want an error", n)
				}
			}
		})
	}
}

func TestANoteOfAnotherOriginDoesNotOpen(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"another origin": strings.Replace(frozenCheckpoint, origin, "other.example", 1),
		"no checkpoint":  "hello\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.Open(signed, vkey); !errors.Is(err, audit.ErrCheckpoint) {
			t.Errorf("Open() of %s err = %v, want %v", name, err, audit.ErrCheckpoint)
		}
	}
}

// faulty is a token that signs another message, in the right form, or fails.
type faulty struct {
	crypto.Signer
	err error
}

func (f faulty) Sign(r io.Reader, input []byte, opts crypto.SignerOpts) ([]byte, error) {
	other := bytes.Clone(input)
	other[0] ^= 1
	signature, err := f.Signer.Sign(r, other, opts)
	return signature, errors.Join(err, f.err)
}

func TestAFaultySignatureIsNotReturned(t *testing.T) {
	broken := errors.New("token was pulled")
	for kind, key := range newKeys(t) {
		for _, want := range []error{audit.ErrSignature, broken} {
			token := faulty{Signer: key}
			if want == broken {
				token.err = broken
			}
			signed, err := audit.Sign(newTrail(1, nil).checkpoint(1), token)
			if signed != nil || !errors.Is(err, want) {
				t.Errorf("Sign() with %s = %q, err = %v, want %v", kind, signed, err, want)
			}
		}
	}
}

func TestOtherKeysSignNoCheckpoints(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-384": p384, "RSA": rsaKey} {
		if _, err := audit.Sign(audit.Checkpoint{Origin: origin}, key); !errors.Is(err, audit.ErrKey) {
			t.Errorf("Sign() with %s err = %v, want %v", name, err, audit.ErrKey)
		}
	}
	for _, key := range []crypto.PublicKey{nil, p384.Public(), ed25519.PublicKey{1, 2}, (*ecdsa.PublicKey)(nil)} {
		if _, err := audit.VerifierKey(origin, key); !errors.Is(err, audit.ErrKey) {
			t.Errorf("VerifierKey() of %T err = %v, want %v", key, err, audit.ErrKey)
		}
	}
}

func TestAnOriginThatNamesNoKeyIsNotSigned(t *testing.T) {
	for kind, key := range newKeys(t) {
		for _, bad := range []string{"", "a b", "a+b", "a\nb", "a\x01"} {
			if _, err := audit.Sign(audit.Checkpoint{Origin: bad}, key); !errors.Is(err, audit.ErrOrigin) {
				t.Errorf("Sign() of origin %q with %s err = %v, want %v", bad, kind, err, audit.ErrOrigin)
			}
			if _, err := audit.VerifierKey(bad, key.Public()); !errors.Is(err, audit.ErrOrigin) {
				t.Errorf("VerifierKey(%q) of %s err = %v, want %v", bad, kind, err, audit.ErrOrigin)
			}
		}
	}
}

func TestMalformedVerifierKeysAreRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(p384.Public())
	if err != nil {
		t.Fatal(err)
	}
	edSPKI, err := x509.MarshalPKIXPublicKey(newKeys(t)["Ed25519"].Public())
	if err != nil {
		t.Fatal(err)
	}
	good := frozenNotes["Ed25519"].vkey
	keyOf := func(material ...byte) string {
		return origin + "+00000000+" + base64.StdEncoding.EncodeToString(material)
	}
	for name, vkey := range map[string]string{
		"empty":           "",
		"one part":        origin,
		"two parts":       origin + "+00000000",
		"no key":          origin + "+00000000+",
		"not base64":      origin + "+00000000+!",
		"unknown type":    keyOf(append([]byte{4}, make([]byte, 32)...)...),
		"short Ed25519":   keyOf(append([]byte{1}, make([]byte, 31)...)...),
		"not SPKI":        keyOf(2, 0x30, 0),
		"P-384":           keyOf(append([]byte{2}, spki...)...),
		"Ed25519 in SPKI": keyOf(append([]byte{2}, edSPKI...)...),
		"other key ID":    keyOf(append([]byte{1}, make([]byte, 32)...)...),
		"upper case":      strings.Replace(good, good[len(origin)+1:len(origin)+9], strings.ToUpper(good[len(origin)+1:len(origin)+9]), 1),
		"newline":         good + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := audit.Open(frozenNote("Ed25519"), vkey); !errors.Is(err, audit.ErrKey) {
				t.Errorf("Open() err = %v, want %v", err, audit.ErrKey)
			}
		})
	}
	if _, err := audit.Open(frozenNote("Ed25519"), "a b"+good[len(origin):]); !errors.Is(err, audit.ErrOrigin) {
		t.Errorf("Open() with a name that has a space err = %v, want %v", err, audit.ErrOrigin)
	}
}
