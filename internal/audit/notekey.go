package audit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Signature types of C2SP signed-note, "Signature types".
const (
	noteEd25519 = 0x01
	noteECDSA   = 0x02
)

// ErrKey reports a key of a kind that cannot sign checkpoints, or a malformed verifier key.
var ErrKey = errors.New("not a key for checkpoints")

// noteKey is a named public key in the sense of C2SP signed-note.
type noteKey struct {
	name     string
	kind     byte   // signature type
	material []byte // the public key as the verifier key carries it
	hash     uint32 // key ID
	verify   func(message, signature []byte) bool
}

var _ note.Verifier = (*noteKey)(nil)

// newNoteKey accepts an ed25519.PublicKey or an *ecdsa.PublicKey on P-256.
func newNoteKey(name string, key crypto.PublicKey) (*noteKey, error) {
	if err := CheckOrigin(name); err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return newEd25519(name, key)
	case *ecdsa.PublicKey:
		return newECDSA(name, key)
	default:
		return nil, fmt.Errorf("%w: %T; use Ed25519 or ECDSA on P-256", ErrKey, key)
	}
}

func newEd25519(name string, key ed25519.PublicKey) (*noteKey, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: Ed25519 key has %d bytes, want %d", ErrKey, len(key), ed25519.PublicKeySize)
	}
	id := sha256.Sum256(append([]byte(name+"\n\x01"), key...))
	return &noteKey{
		name:     name,
		kind:     noteEd25519,
		material: key,
		hash:     binary.BigEndian.Uint32(id[:]),
		verify: func(message, signature []byte) bool {
			return ed25519.Verify(key, message, signature)
		},
	}, nil
}

func newECDSA(name string, key *ecdsa.PublicKey) (*noteKey, error) {
	if key == nil || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: ECDSA key is not on P-256", ErrKey)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	id := sha256.Sum256(spki) // for this type alone, without name and type
	return &noteKey{
		name:     name,
		kind:     noteECDSA,
		material: spki,
		hash:     binary.BigEndian.Uint32(id[:]),
		verify: func(message, signature []byte) bool {
			digest := sha256.Sum256(message)
			return ecdsa.VerifyASN1(key, digest[:], signature)
		},
	}, nil
}

// parseNoteKey decodes exactly what String writes.
func parseNoteKey(vkey string) (*noteKey, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: a verifier key has three parts", ErrKey)
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) == 0 {
		return nil, fmt.Errorf("%w: its public key is not base64", ErrKey)
	}
	public, err := parseMaterial(raw[0], raw[1:])
	if err != nil {
		return nil, err
	}
	k, err := newNoteKey(parts[0], public)
	if err != nil {
		return nil, err
	}
	if k.String() != vkey {
		return nil, fmt.Errorf("%w: its key ID does not fit", ErrKey)
	}
	return k, nil
}

func parseMaterial(kind byte, material []byte) (crypto.PublicKey, error) {
	switch kind {
	case noteEd25519:
		return ed25519.PublicKey(material), nil
	case noteECDSA:
		public, err := x509.ParsePKIXPublicKey(material)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		if _, ok := public.(*ecdsa.PublicKey); !ok {
			return nil, fmt.Errorf("%w: %T is not an ECDSA key", ErrKey, public)
		}
		return public, nil
	default:
		return nil, fmt.Errorf("%w: signature type %#02x; this hsm-kp knows 0x01 and 0x02", ErrKey, kind)
	}
}

// String returns the verifier key.
func (k *noteKey) String() string {
	material := append([]byte{k.kind}, k.material...)
	return fmt.Sprintf("%s+%08x+%s", k.name, k.hash, base64.StdEncoding.EncodeToString(material))
}

// Name returns the key name.
func (k *noteKey) Name() string { return k.name }

// KeyHash returns the key ID.
func (k *noteKey) KeyHash() uint32 { return k.hash }

// Verify reports whether signature is a valid signature of message.
func (k *noteKey) Verify(message, signature []byte) bool { return k.verify(message, signature) }
