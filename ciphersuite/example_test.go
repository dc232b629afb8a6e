package ciphersuite_test

import (
	"fmt"
	"log"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

func ExampleParse() {
	suite, err := ciphersuite.Parse("0x0002")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(suite.Name)
	fmt.Printf("number %d, signatures %v, HPKE public keys of %d bytes\n", suite.ID, suite.Signature, suite.Npk)
	// Output:
	// MLS_128_DHKEMP256_AES128GCM_SHA256_P256
	// number 2, signatures ecdsa_secp256r1_sha256, HPKE public keys of 65 bytes
}
