package keypackage_test

import (
	"crypto/rand"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func BenchmarkParse(b *testing.B) {
	for name, template := range map[string]keypackage.Template{
		"plain": newTemplate(suiteOf(b, 2)),
		"rich":  richTemplate(suiteOf(b, 2)),
	} {
		encoded := build(b, template).Bytes()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(encoded)))
			for b.Loop() {
				if _, err := keypackage.Parse(encoded); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "kp/s")
		})
	}
}

func BenchmarkParseMessage(b *testing.B) {
	encoded := build(b, newTemplate(suiteOf(b, 2))).Message()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keypackage.ParseMessage(encoded); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "kp/s")
}

func BenchmarkBytes(b *testing.B) {
	kp := build(b, newTemplate(suiteOf(b, 2))).KeyPackage()
	b.ReportAllocs()
	for b.Loop() {
		kp.Bytes()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "kp/s")
}

func BenchmarkRef(b *testing.B) {
	kp := build(b, newTemplate(suiteOf(b, 2))).KeyPackage()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := kp.Ref(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBuild with its parts: "bare" is what cannot be left out, two
// signatures and their two verifications.
func BenchmarkBuild(b *testing.B) {
	for _, s := range ciphersuite.All() {
		signer := newSigner(b, s)
		builder, err := keypackage.NewBuilder(newTemplate(s), signer)
		if err != nil {
			b.Fatal(err)
		}
		initKey, encryptionKey := newPublicKey(b, s), newPublicKey(b, s)
		_, encoded, _ := ciphersuite.MarshalPublicKey(signer.Public())
		public, err := s.Signature.ParsePublicKey(encoded)
		if err != nil {
			b.Fatal(err)
		}
		content := make([]byte, 300)
		b.Run(s.Signature.String()+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for range 2 {
					signature, err := s.Signature.SignWithLabel(rand.Reader, signer, "KeyPackageTBS", content)
					if err != nil {
						b.Fatal(err)
					}
					if err := public.VerifyWithLabel("KeyPackageTBS", content, signature); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run(s.Signature.String()+"/build", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := builder.Build(rand.Reader, initKey, encryptionKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
