package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	circl "github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// bareLoop is the work that every key package needs, and nothing else: the limit that
// generation is compared with.
type bareLoop struct {
	suite   *ciphersuite.Suite
	signing *token.SigningKey
	seal    func(context.Context, []byte) error
	message []byte
	opts    crypto.SignerOpts
}

// bareLoop finds the keys through t.
func (b *run) bareLoop(ctx context.Context, t *token.Token, keyID []byte, s *ciphersuite.Suite) (l *bareLoop, err error) {
	l = &bareLoop{suite: s}
	l.message, l.opts = messageOf(s)
	if l.signing, err = t.FindKeyPair(ctx, token.KeyQuery{ID: keyID}); err != nil {
		return nil, err
	}
	if b.mechanism == vault.RSAOAEP {
		l.seal, err = b.sealByOAEP(ctx)
	} else {
		l.seal, err = sealByGCM(ctx, t, b.wrapping)
	}
	return l, err
}

// sealByGCM returns an AES-GCM encryption in the token.
func sealByGCM(ctx context.Context, t *token.Token, id vault.KeyID) (func(context.Context, []byte) error, error) {
	key, err := t.FindWrappingKey(ctx, id)
	return func(ctx context.Context, plaintext []byte) error {
		var nonce [token.NonceSize]byte
		rand.Read(nonce[:])
		_, err := key.Seal(ctx, &nonce, plaintext, make([]byte, 96))
		return err
	}, err
}

// sealByOAEP returns an RSA-OAEP encryption. It is made in software, by the calls of no library
// of PKCS#11.
func (b *run) sealByOAEP(ctx context.Context) (func(context.Context, []byte) error, error) {
	key, err := b.Token.FindDecryptionKey(ctx, b.wrapping)
	if err != nil {
		return nil, err
	}
	oaep, err := key.Variant(ctx)
	return func(_ context.Context, plaintext []byte) error {
		_, err := oaep.Encrypt(key.Public(), plaintext[:min(len(plaintext), oaep.Capacity(key.Public()))], make([]byte, 96))
		return err
	}, err
}

// keyPackage does the work that one key package needs.
func (l *bareLoop) keyPackage(ctx context.Context) error {
	kem := circl.KEM(l.suite.KEM).Scheme()
	for range 2 {
		if _, _, err := kem.GenerateKeyPair(); err != nil {
			return err
		}
		signature, err := l.signing.Sign(rand.Reader, l.message, l.opts)
		if err != nil {
			return err
		}
		if !verifies(l.signing.Public(), l.message, signature) {
			return errors.New("the token returned a signature that does not verify")
		}
	}
	return l.seal(ctx, make([]byte, 2*l.suite.Nsk+2))
}

// signature makes one in the token.
func (l *bareLoop) signature(context.Context) error {
	_, err := l.signing.Sign(rand.Reader, l.message, l.opts)
	return err
}

// messageOf returns what the token signs: a digest for ECDSA, and for EdDSA a
// message as long as a KeyPackageTBS.
func messageOf(s *ciphersuite.Suite) ([]byte, crypto.SignerOpts) {
	switch s.Signature {
	case ciphersuite.ECDSA_SECP256R1_SHA256, ciphersuite.ECDSA_SECP384R1_SHA384, ciphersuite.ECDSA_SECP521R1_SHA512:
		return make([]byte, s.Hash.Size()), s.Hash
	default:
		return make([]byte, 300), crypto.Hash(0)
	}
}

func verifies(public crypto.PublicKey, message, signature []byte) bool {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, message, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(public, message, signature)
	case ed448.PublicKey:
		return ed448.Verify(public, message, signature, "")
	}
	return false
}

// perSecond repeats work on as many goroutines as generation uses, until the time
// is over, and returns how many a second were done.
func (b *run) perSecond(ctx context.Context, work func(context.Context) error) (float64, error) {
	var done atomic.Uint64
	start := time.Now()
	end := start.Add(b.Duration)
	g, ctx := errgroup.WithContext(ctx)
	for range operator.Workers(b.Token, b.Processors) {
		g.Go(func() error {
			for time.Now().Before(end) && ctx.Err() == nil {
				if err := work(ctx); err != nil {
					return fmt.Errorf("bare loop: %w", err)
				}
				done.Add(1)
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), err
}
