package keypackage_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func Example() {
	suite, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519)
	_, signer, err := ed25519.GenerateKey(rand.Reader) // or a key in a token
	if err != nil {
		log.Fatal(err)
	}
	builder, err := keypackage.NewBuilder(keypackage.Template{
		Suite:        suite,
		Credential:   keypackage.BasicCredential([]byte("alice@example.com")),
		Capabilities: keypackage.DefaultCapabilities(suite),
		Lifetime:     keypackage.Lifetime{NotBefore: 1_800_000_000, NotAfter: 1_807_257_600},
		Extensions:   []keypackage.Extension{{Type: keypackage.ExtensionLastResort}},
	}, signer)
	if err != nil {
		log.Fatal(err)
	}
	initKey, err := hpke.GenerateKeyPair(suite, rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	encryptionKey, err := hpke.GenerateKeyPair(suite, rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	built, err := builder.Build(rand.Reader, initKey.PublicKey(), encryptionKey.PublicKey())
	if err != nil {
		log.Fatal(err)
	}

	message, err := keypackage.ParseMessage(built.Message())
	if err != nil {
		log.Fatal(err)
	}
	report := keypackage.Validate(message.KeyPackage, keypackage.Policy{Now: 1_900_000_000})
	fmt.Println(message.KeyPackage.LeafNode.Capabilities.Extensions, report.OK())
	for _, f := range report.Findings {
		fmt.Println(f.ID, f)
	}
	// Output:
	// [last_resort] false
	// lifetime-expired error: the lifetime is over (not_after 2027-04-09T08:00:00Z)
}
