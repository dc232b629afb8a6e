package hpke

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	circl "github.com/cloudflare/circl/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// ErrCleared reports the use of a private key after Clear.
var ErrCleared = errors.New("the private key was cleared")

const redacted = "REDACTED"

// SecretKey is a private key in memory. It prints as REDACTED. It is safe for
// concurrent use.
//
// Clear overwrites the bytes that it holds. What the library beneath made of
// them while a key was generated or used is beyond it and goes with the next
// garbage collections.
type SecretKey struct {
	suite  *ciphersuite.Suite
	public []byte

	mu     sync.RWMutex
	secret []byte // Nsk bytes; nil once cleared
}

var _ PrivateKey = (*SecretKey)(nil)

// GenerateKeyPair makes a key pair from Nsk bytes of rand with DeriveKeyPair
// (RFC 9180, Section 7.1.3).
func GenerateKeyPair(s *ciphersuite.Suite, rand io.Reader) (*SecretKey, error) {
	scheme := circl.KEM(s.KEM).Scheme()
	ikm := make([]byte, scheme.SeedSize())
	defer clear(ikm)
	if _, err := io.ReadFull(rand, ikm); err != nil {
		return nil, fmt.Errorf("generate HPKE key pair: %w", err)
	}
	public, private := scheme.DeriveKeyPair(ikm)
	publicBytes, err := public.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("generate HPKE key pair: %w", err)
	}
	secret, err := private.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("generate HPKE key pair: %w", err)
	}
	return &SecretKey{suite: s, public: publicBytes, secret: secret}, nil
}

// ParsePrivateKey decodes a private key of Nsk bytes (RFC 9180, Section
// 7.1.2). One of suite 5 may lack its leading zero byte, as some libraries
// write it. It keeps a copy of b; no error repeats its bytes.
func ParsePrivateKey(s *ciphersuite.Suite, b []byte) (*SecretKey, error) {
	const p521 = 66
	secret := make([]byte, s.Nsk)
	switch {
	case len(b) == s.Nsk:
		copy(secret, b)
	case s.Nsk == p521 && len(b) == p521-1:
		copy(secret[1:], b)
	default:
		return nil, fmt.Errorf("parse HPKE private key: it has %d bytes, want %d", len(b), s.Nsk)
	}
	private, err := circl.KEM(s.KEM).Scheme().UnmarshalBinaryPrivateKey(secret)
	if err != nil {
		clear(secret)
		return nil, errors.New("parse HPKE private key: it is out of range")
	}
	public, err := private.Public().MarshalBinary()
	if err != nil {
		clear(secret)
		return nil, fmt.Errorf("parse HPKE private key: %w", err)
	}
	return &SecretKey{suite: s, public: public, secret: secret}, nil
}

// Suite returns the suite of the key.
func (k *SecretKey) Suite() *ciphersuite.Suite { return k.suite }

// PublicKey returns the encoded public key, Npk bytes, which the caller must
// not change.
func (k *SecretKey) PublicKey() []byte { return k.public }

// Bytes returns a copy of the private key, Nsk bytes, which the caller clears;
// nil after Clear.
func (k *SecretKey) Bytes() []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return append([]byte(nil), k.secret...)
}

// AppendTo appends the private key, Nsk bytes, to b, for a caller that owns
// the only copy.
func (k *SecretKey) AppendTo(b []byte) []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return append(b, k.secret...)
}

// Clear overwrites the private key. Later use is ErrCleared. Clear of a nil key
// does nothing.
func (k *SecretKey) Clear() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.secret)
	k.secret = nil
}

// Open implements PrivateKey. The error is ErrCleared or wraps ErrOpen.
func (k *SecretKey) Open(info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.secret == nil {
		return nil, ErrCleared
	}
	private, err := circl.KEM(k.suite.KEM).Scheme().UnmarshalBinaryPrivateKey(k.secret)
	if err != nil {
		return nil, errors.New("use HPKE private key: it is out of range")
	}
	receiver, err := suiteOf(k.suite).NewReceiver(private, info)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	if len(kemOutput) != k.suite.Nenc {
		return nil, fmt.Errorf("%w: the KEM output has %d bytes, want %d", ErrOpen, len(kemOutput), k.suite.Nenc)
	}
	opener, err := receiver.Setup(kemOutput)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	plaintext, err := opener.Open(ciphertext, aad)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	return plaintext, nil
}

// String, GoString, Format, MarshalJSON, MarshalText and LogValue keep the key
// out of whatever is printed.
func (k *SecretKey) String() string               { return redacted }
func (k *SecretKey) GoString() string             { return redacted }
func (k *SecretKey) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) }
func (k *SecretKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (k *SecretKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (k *SecretKey) LogValue() slog.Value         { return slog.StringValue(redacted) }
