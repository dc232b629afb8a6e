package keypackage_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
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
		b.Run(fmt.Sprintf("suite%d/bare", s.ID), func(b *testing.B) {
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
		b.Run(fmt.Sprintf("suite%d/build", s.ID), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := builder.Build(rand.Reader, initKey, encryptionKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkValidate beside its two signature verifications, "bare".
func BenchmarkValidate(b *testing.B) {
	for _, s := range ciphersuite.All() {
		kp := build(b, newTemplate(s)).KeyPackage()
		public, err := s.Signature.ParsePublicKey(kp.LeafNode.SignatureKey)
		if err != nil {
			b.Fatal(err)
		}
		leaf, outer := tbs(kp)
		b.Run(fmt.Sprintf("suite%d/bare", s.ID), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := public.VerifyWithLabel("LeafNodeTBS", leaf, kp.LeafNode.Signature); err != nil {
					b.Fatal(err)
				}
				if err := public.VerifyWithLabel("KeyPackageTBS", outer, kp.Signature); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("suite%d/validate", s.ID), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := keypackage.Validate(kp, keypackage.Policy{Now: now}); !r.OK() {
					b.Fatal(r.Findings)
				}
			}
		})
	}
}

// tbs returns LeafNodeTBS and KeyPackageTBS: the encodings without their
// signatures, whose lengths are one byte or two.
func tbs(kp *keypackage.KeyPackage) (leaf, outer []byte) {
	leaf, outer = kp.LeafNode.Bytes(), kp.Bytes()
	leaf = leaf[:len(leaf)-len(kp.LeafNode.Signature)-wire.VectorLen(len(kp.LeafNode.Signature))]
	outer = outer[:len(outer)-len(kp.Signature)-wire.VectorLen(len(kp.Signature))]
	return leaf, outer
}
