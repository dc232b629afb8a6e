package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	circl "github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// processors is how many of them Go uses.
func processors() int { return runtime.GOMAXPROCS(0) }

// measureLimit runs the work that no key package can do without, and nothing
// else, on all sessions: the limit that generate is held against.
func (b *bench) measureLimit(ctx context.Context, s *ciphersuite.Suite, key crypto.Signer) (float64, error) {
	kem := circl.KEM(s.KEM).Scheme()
	message, opts := benchMessage(s)
	return b.perSecond(ctx, func(ctx context.Context) error {
		for range 2 {
			if _, _, err := kem.GenerateKeyPair(); err != nil {
				return err
			}
			signature, err := key.Sign(rand.Reader, message, opts)
			if err != nil {
				return err
			}
			if !verifies(key.Public(), message, signature) {
				return errors.New("the token returned a signature that does not verify")
			}
		}
		var nonce [12]byte
		rand.Read(nonce[:])
		_, err := b.sealing.Seal(ctx, nonce, make([]byte, 2*s.Nsk+2), make([]byte, 96))
		return err
	})
}

// measureSign runs signatures in the token alone.
func (b *bench) measureSign(ctx context.Context, s *ciphersuite.Suite, key crypto.Signer) (float64, error) {
	message, opts := benchMessage(s)
	return b.perSecond(ctx, func(context.Context) error {
		_, err := key.Sign(rand.Reader, message, opts)
		return err
	})
}

// benchMessage is what the token signs: a digest for ECDSA, and for EdDSA a
// message as long as a KeyPackageTBS.
func benchMessage(s *ciphersuite.Suite) ([]byte, crypto.SignerOpts) {
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

// perSecond repeats work on as many goroutines as generate has, until the time
// is up, and returns how many a second were done.
func (b *bench) perSecond(ctx context.Context, work func(context.Context) error) (float64, error) {
	var done atomic.Uint64
	start := time.Now()
	end := start.Add(b.duration)
	g, ctx := errgroup.WithContext(ctx)
	for range workers(b.token) {
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
