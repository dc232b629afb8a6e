package hpke

import (
	"crypto/ecdh"
	"fmt"
	"io"

	stdlib "crypto/hpke"

	circl "github.com/cloudflare/circl/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// ExchangeKey is an opaque private key of DHKEM (RFC 9180, Section 4.1): an
// ecdh.KeyExchanger, such as a token's, does the Diffie-Hellman, and Open does the rest in
// software. So the shared secret is in memory during Open. It is safe for concurrent use if
// the key exchanger is. It prints as REDACTED.
type ExchangeKey struct {
	suite    *ciphersuite.Suite
	exchange ecdh.KeyExchanger
	public   []byte
}

var _ PrivateKey = (*ExchangeKey)(nil)

// NewExchangeKey returns the private key of the suite whose Diffie-Hellman is kx. Open
// clears each secret that kx returns. NewExchangeKey fails if the curve of kx is not that of
// the suite's KEM; the KEMs with X448 and the hybrid ones have no curve in crypto/ecdh.
func NewExchangeKey(s *ciphersuite.Suite, kx ecdh.KeyExchanger) (*ExchangeKey, error) {
	k, err := stdlib.NewDHKEMPrivateKey(kx)
	if err != nil {
		return nil, fmt.Errorf("make HPKE private key: %w", err)
	}
	if k.KEM().ID() != s.KEM || kx.PublicKey().Curve() != kx.Curve() {
		return nil, fmt.Errorf("make HPKE private key: a key on %v does not fit %v", kx.Curve(), s.ID)
	}
	return &ExchangeKey{suite: s, exchange: kx, public: kx.PublicKey().Bytes()}, nil
}

// PublicKey implements PrivateKey.
func (k *ExchangeKey) PublicKey() []byte { return k.public }

// Open implements PrivateKey. The error wraps ErrOpen if the ciphertext or the KEM output
// is at fault, else the error of the key exchanger, such as a token's.
func (k *ExchangeKey) Open(info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	if len(kemOutput) != k.suite.Nenc {
		return nil, fmt.Errorf("%w: the KEM output has %d bytes, want %d", ErrOpen, len(kemOutput), k.suite.Nenc)
	}
	if smallOrder(circl.KEM(k.suite.KEM), kemOutput) {
		return nil, fmt.Errorf("%w: the KEM output is a point of small order", ErrOpen)
	}
	one := oneExchange{KeyExchanger: k.exchange}
	defer one.clear()
	plaintext, err := one.open(k.suite, info, aad, kemOutput, ciphertext)
	if one.err != nil {
		return nil, fmt.Errorf("agree on a secret: %w", one.err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	return plaintext, nil
}

// oneExchange keeps what the key exchanger returned: its error, which says nothing of the
// ciphertext, and its secret, which crypto/hpke does not clear.
type oneExchange struct {
	ecdh.KeyExchanger
	secret []byte
	err    error
}

// ECDH implements ecdh.KeyExchanger.
func (x *oneExchange) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	x.secret, x.err = x.KeyExchanger.ECDH(peer)
	return x.secret, x.err
}

func (x *oneExchange) clear() { clear(x.secret) }

func (x *oneExchange) open(s *ciphersuite.Suite, info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	_, kdf, aead, err := standard{s}.algorithms()
	if err != nil {
		return nil, err
	}
	k, err := stdlib.NewDHKEMPrivateKey(x)
	if err != nil {
		return nil, err
	}
	recipient, err := stdlib.NewRecipient(kemOutput, k, kdf, aead, info)
	if err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	return recipient.Open(aad, ciphertext)
}

// Format prints REDACTED under every verb: the key exchanger may be a key in memory.
func (k ExchangeKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }
