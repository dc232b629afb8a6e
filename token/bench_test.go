package token_test

import (
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

func BenchmarkSeal(b *testing.B) {
	for _, sessions := range []int{1, 4, 8} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			tok := openSessions(b, sessions)
			k := wrappingKey(b, tok)
			plaintext, aad := make([]byte, 68), make([]byte, 80)
			parallel(b, sessions, func() {
				if _, err := k.Seal(b.Context(), [token.NonceSize]byte{}, plaintext, aad); err != nil {
					b.Errorf("Seal() err = %v, want nil", err)
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
