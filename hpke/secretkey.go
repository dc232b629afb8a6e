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

// SecretKey is a private key in memory. It prints as REDACTED. It is safe for concurrent
// use.
//
// Clear overwrites the bytes that it holds. Copies that the library beneath made while the
// key was generated or used are out of its reach: they stay in freed memory until that is
// used again.
type SecretKey struct {
	suite  *ciphersuite.Suite
	public []byte
	secret *secret
}

// secret has the bytes two pointers away from the key. If a SecretKey is in an unexported
// field of another struct, package fmt does not call the methods that print REDACTED, and
// follows one pointer if the verb does not fit it.
type secret struct {
	mu sync.RWMutex
	b  *[]byte // Nsk bytes; nil once cleared
}

// use calls f with the private key, which f must not keep. The error is that of f, or
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

// newSecretKey keeps both slices.
func newSecretKey(s *ciphersuite.Suite, public, b []byte) *SecretKey {
	return &SecretKey{suite: s, public: public, secret: &secret{b: &b}}
}

// GenerateKeyPair makes a key pair from Nsk bytes of rand and returns the private key, which
// has its public key. For a NIST curve the bytes are the private key, or the next ones if
// they are out of range. For X25519 and X448 the private key is derived from them
// (DeriveKeyPair, RFC 9180, Section 7.1.3). For a hybrid KEM they are the seed. It fails only
// if rand does. The caller clears the key.
func GenerateKeyPair(s *ciphersuite.Suite, rand io.Reader) (*SecretKey, error) {
	public, private, err := libraryOf(s).generate(rand)
	if err != nil {
		return nil, fmt.Errorf("generate HPKE key pair: %w", err)
	}
	return newSecretKey(s, public, private), nil
}

// ParsePrivateKey decodes a private key of Nsk bytes (RFC 9180, Section 7.1.2) and computes
// its public key. A key of suite 5 may lack its leading zero byte, as some libraries write
// it. The SecretKey keeps a copy of b, and the caller clears both. It fails if b has another
// length or is out of range; no error has bytes of b in it.
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

// NewSecretKey returns a SecretKey for a private key whose public key is known. Unlike
// ParsePrivateKey it computes nothing and does not check that the two belong together: see
// Check. It fails if the lengths are not Npk and Nsk. The key keeps copies of both.
func NewSecretKey(s *ciphersuite.Suite, public, private []byte) (*SecretKey, error) {
	if len(private) != s.Nsk || len(public) != s.Npk {
		return nil, fmt.Errorf("parse HPKE private key: it has %d bytes and its public key %d, want %d and %d", len(private), len(public), s.Nsk, s.Npk)
	}
	return newSecretKey(s, bytes.Clone(public), bytes.Clone(private)), nil
}

// Check computes the public key and compares it with PublicKey. The error wraps
// ErrKeyMismatch if they differ, or is ErrCleared.
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

// Suite returns the suite of the key, which is shared and must not be changed.
func (k *SecretKey) Suite() *ciphersuite.Suite { return k.suite }

// PublicKey implements PrivateKey. It also works after Clear.
func (k *SecretKey) PublicKey() []byte { return k.public }

// Bytes returns a copy of the private key, Nsk bytes, which the caller clears. It returns
// nil after Clear.
func (k *SecretKey) Bytes() []byte {
	b, err := k.AppendTo(make([]byte, 0, k.suite.Nsk))
	if err != nil {
		return nil
	}
	return b
}

// AppendTo appends the private key, Nsk bytes, to b, which the caller clears. It makes no
// other copy if b has the capacity. The error is ErrCleared.
func (k *SecretKey) AppendTo(b []byte) ([]byte, error) {
	err := k.secret.use(func(private []byte) error {
		b = append(b, private...)
		return nil
	})
	return b, err
}

// Clear overwrites the private key. Later uses fail with ErrCleared. Clear of a nil key does
// nothing.
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

// The methods below print REDACTED in place of the key. Their receivers are values, so that
// they hold for a copy of the key too.

func (k SecretKey) String() string               { return redacted }
func (k SecretKey) GoString() string             { return redacted }
func (k SecretKey) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) }
func (k SecretKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (k SecretKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (k SecretKey) LogValue() slog.Value         { return slog.StringValue(redacted) }
