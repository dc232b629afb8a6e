package token_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

// parallel runs f from more goroutines than there are sessions, which bound it.
func parallel(b *testing.B, sessions int, f func()) {
	b.Helper()
	b.SetParallelism(sessions)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func openSessions(b *testing.B, sessions int) *token.Token {
	b.Helper()
	cfg := softhsmtest.Config(b)
	cfg.Sessions = sessions
	tok, err := token.Open(b.Context(), cfg)
	if err != nil {
		b.Fatalf("Open() err = %v, want nil", err)
	}
	b.Cleanup(func() { tok.Close() })
	return tok
}

func BenchmarkSign(b *testing.B) {
	for _, c := range token.Curves() {
		for _, sessions := range []int{1, 4, 8} {
			b.Run(fmt.Sprintf("%v/%d", c, sessions), func(b *testing.B) {
				tok := openSessions(b, sessions)
				k := generate(b, tok, c, "bench")
				input, opts := toSign(c, []byte("message"))
				parallel(b, sessions, func() {
					if _, err := k.Sign(nil, input, opts); err != nil {
						b.Errorf("Sign() err = %v, want nil", err)
					}
				})
			})
		}
	}
}

// BenchmarkWatch signs without a watcher and with one.
func BenchmarkWatch(b *testing.B) {
	for _, watched := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched=%v", watched), func(b *testing.B) {
			cfg := softhsmtest.Config(b)
			if watched {
				cfg.Watch = func(token.Call) {}
			}
			tok, err := token.Open(b.Context(), cfg)
			if err != nil {
				b.Fatalf("Open() err = %v, want nil", err)
			}
			b.Cleanup(func() { tok.Close() })
			k := generate(b, tok, token.P256, "bench")
			input, opts := toSign(token.P256, []byte("message"))
			for b.Loop() {
				if _, err := k.Sign(nil, input, opts); err != nil {
					b.Fatalf("Sign() err = %v, want nil", err)
				}
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, sessions := range []int{1, 4, 8} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			tok := openSessions(b, sessions)
			k := wrappingKey(b, tok)
			plaintext, aad := make([]byte, 68), make([]byte, 80)
			parallel(b, sessions, func() {
				if _, err := k.Seal(b.Context(), &[token.NonceSize]byte{}, plaintext, aad); err != nil {
					b.Errorf("Seal() err = %v, want nil", err)
				}
			})
		})
	}
}

func BenchmarkTokenCustody(b *testing.B) {
	for _, c := range []token.Curve{token.P256, token.P384, token.P521} {
		for _, sessions := range []int{1, 4} {
			b.Run(fmt.Sprintf("%v/%d", c, sessions), func(b *testing.B) { benchmarkTokenCustody(b, c, sessions) })
		}
	}
}

func benchmarkTokenCustody(b *testing.B, c token.Curve, sessions int) {
	tok := openSessions(b, sessions)
	k := keyWrappingKey(b, tok)
	m, err := tok.ProbeKeyWrap(b.Context(), c)
	if err != nil {
		b.Fatalf("ProbeKeyWrap() err = %v, want nil", err)
	}
	w := generateWrapped(b, k, m, c)
	peer, err := w.public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for _, op := range []struct {
		name string
		do   func() error
	}{
		{"generate+wrap", func() error { _, _, err := k.GenerateWrapped(b.Context(), m, c); return err }},
		{"unwrap", func() error { return w.unwrap(b.Context(), k, nothing) }},
		{"unwrap+derive", func() error {
			return w.unwrap(b.Context(), k, func(x ecdh.KeyExchanger) error { _, err := x.ECDH(peer.PublicKey()); return err })
		}},
	} {
		b.Run(op.name, func(b *testing.B) {
			parallel(b, sessions, func() {
				if err := op.do(); err != nil {
					b.Errorf("%s err = %v, want nil", op.name, err)
				}
			})
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	cfg := softhsmtest.Config(b)
	for b.Loop() {
		tok, err := token.Open(b.Context(), cfg)
		if err != nil {
			b.Fatalf("Open() err = %v, want nil", err)
		}
		tok.Close()
	}
}
