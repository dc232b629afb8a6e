package hpke

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// ErrCleared reports the use of a private key after Clear.
var ErrCleared = errors.New("the private key was cleared")

const redacted = "REDACTED"

// SecretKey is a private key in memory. It prints as REDACTED. It is safe for
// concurrent use.
//
// Clear overwrites the bytes that it holds. What the library beneath made of
// them while a key was generated or used is beyond it: that stays in freed memory
// until the memory is used again.
type SecretKey struct {
	suite  *ciphersuite.Suite
	public []byte
	secret *secret
}

// secret has the bytes two pointers away from the key. In an unexported field of
// another struct the methods that print REDACTED are not called, and package fmt
// follows one pointer there when the verb does not fit it.
type secret struct {
	mu sync.RWMutex
	b  *[]byte // Nsk bytes; nil once cleared
}

// use calls f with the private key, which f must not keep. The error is f's or
// ErrCleared.
func (s *secret) use(f func(private []byte) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.b == nil {
		return ErrCleared
	}
	return f(*s.b)
}

func (s *secret) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.b != nil {
		clear(*s.b)
		s.b = nil
	}
}

var _ PrivateKey = (*SecretKey)(nil)

// newSecretKey takes what it is given.
func newSecretKey(s *ciphersuite.Suite, public, b []byte) *SecretKey {
	return &SecretKey{suite: s, public: public, secret: &secret{b: &b}}
}

// GenerateKeyPair makes a key pair from Nsk bytes of rand. For a P-curve they are the private
// key, or the next ones are where these are out of range; for X25519 and X448 it is derived from them
// (DeriveKeyPair of RFC 9180, Section 7.1.3); for a hybrid KEM they are the seed.
func GenerateKeyPair(s *ciphersuite.Suite, rand io.Reader) (*SecretKey, error) {
	public, private, err := libraryOf(s).generate(rand)
	if err != nil {
		return nil, fmt.Errorf("generate HPKE key pair: %w", err)
	}
	return newSecretKey(s, public, private), nil
}

// ParsePrivateKey decodes a private key of Nsk bytes (RFC 9180, Section
// 7.1.2). One of suite 5 may lack its leading zero byte, as some libraries
// write it. It keeps a copy of b; no error repeats its bytes.
func ParsePrivateKey(s *ciphersuite.Suite, b []byte) (*SecretKey, error) {
	padding := s.Nsk - len(b)
	if padding != 0 && (padding != 1 || s.ID != ciphersuite.MLS_256_DHKEMP521_AES256GCM_SHA512_P521) {
		return nil, fmt.Errorf("parse HPKE private key: it has %d bytes, want %d", len(b), s.Nsk)
	}
	private := make([]byte, s.Nsk)
	copy(private[padding:], b)
	public, err := libraryOf(s).publicOf(private)
	if err != nil {
		clear(private)
		return nil, fmt.Errorf("parse HPKE private key: %w", err)
	}
	return newSecretKey(s, public, private), nil
}

// ErrKeyMismatch reports a private key that is not the one of its public key.
var ErrKeyMismatch = errors.New("the private key is not that of the public key")

// NewSecretKey is ParsePrivateKey for a private key whose public key is known already.
// It believes that the two belong together, and computes nothing: see Check. The lengths
// are Nsk and Npk. It keeps copies.
func NewSecretKey(s *ciphersuite.Suite, public, private []byte) (*SecretKey, error) {
	if len(private) != s.Nsk || len(public) != s.Npk {
		return nil, fmt.Errorf("parse HPKE private key: it has %d bytes and its public key %d, want %d and %d", len(private), len(public), s.Nsk, s.Npk)
	}
	return newSecretKey(s, bytes.Clone(public), bytes.Clone(private)), nil
}

// Check computes the public key. The error is ErrKeyMismatch where it is another, or
// ErrCleared.
func (k *SecretKey) Check() error {
	return k.secret.use(func(private []byte) error {
		public, err := libraryOf(k.suite).publicOf(private)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrKeyMismatch, err)
		}
		if !bytes.Equal(public, k.public) {
			return ErrKeyMismatch
		}
		return nil
	})
}

// Suite returns the suite of the key.
func (k *SecretKey) Suite() *ciphersuite.Suite { return k.suite }

// PublicKey returns the encoded public key, Npk bytes, which the caller must
// not change.
func (k *SecretKey) PublicKey() []byte { return k.public }

// Bytes returns a copy of the private key, Nsk bytes, which the caller clears;
// nil after Clear.
func (k *SecretKey) Bytes() []byte {
	b, err := k.AppendTo(make([]byte, 0, k.suite.Nsk))
	if err != nil {
		return nil
	}
	return b
}

// AppendTo appends the private key, Nsk bytes, to b, whose owner clears it. The
// error is ErrCleared. Where b has the room, no other copy is made.
func (k *SecretKey) AppendTo(b []byte) ([]byte, error) {
	err := k.secret.use(func(private []byte) error {
		b = append(b, private...)
		return nil
	})
	return b, err
}

// Clear overwrites the private key. Later use is ErrCleared. Clear of a nil key
// does nothing.
func (k *SecretKey) Clear() {
	if k != nil {
		k.secret.clear()
	}
}

// Open implements PrivateKey. The error is ErrCleared or wraps ErrOpen.
func (k *SecretKey) Open(info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	if len(kemOutput) != k.suite.Nenc {
		return nil, fmt.Errorf("%w: the KEM output has %d bytes, want %d", ErrOpen, len(kemOutput), k.suite.Nenc)
	}
	var plaintext []byte
	err := k.secret.use(func(private []byte) (err error) {
		if plaintext, err = libraryOf(k.suite).open(private, info, aad, kemOutput, ciphertext); err != nil {
			return fmt.Errorf("%w: %w", ErrOpen, err)
		}
		return nil
	})
	return plaintext, err
}

// The methods below keep the key out of whatever is printed. They are the
// value's, so that they hold for a copy of the key too.

func (k SecretKey) String() string               { return redacted }
func (k SecretKey) GoString() string             { return redacted }
func (k SecretKey) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) }
func (k SecretKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (k SecretKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (k SecretKey) LogValue() slog.Value         { return slog.StringValue(redacted) }
