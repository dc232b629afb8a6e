package hpke_test

import (
	"crypto/rand"
	"fmt"
	"log"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// The sender of a Welcome encrypts to the init_key of a key package.
func ExampleEncryptWithLabel() {
	suite, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256)
	key, err := hpke.GenerateKeyPair(suite, rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	defer key.Clear()
	context := []byte("encrypted group info")
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(suite, key.PublicKey(), "Welcome", context, []byte("secrets"))
	if err != nil {
		log.Fatal(err)
	}
	plaintext, err := hpke.DecryptWithLabel(key, "Welcome", context, kemOutput, ciphertext)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, by the private key %v\n", plaintext, key)
	// Output: secrets, by the private key REDACTED
}
