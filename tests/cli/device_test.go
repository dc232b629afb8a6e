package cli

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	stdlib "crypto/hpke"

	"github.com/rogpeppe/go-internal/testscript"
)

// deviceKey SUITE NAME makes the key pair of a device by Go's HPKE: NAME.key, and NAME.pub in base64.
func deviceKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: devicekey SUITE NAME")
	}
	id, err := strconv.ParseUint(args[0], 10, 16)
	ts.Check(err)
	kem := map[uint64]ecdh.Curve{1: ecdh.X25519(), 2: ecdh.P256(), 5: ecdh.P521(), 7: ecdh.P384()}[id]
	key, err := stdlib.DHKEM(kem).GenerateKey()
	ts.Check(err)
	private, err := key.Bytes()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".key"), private, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".pub"), []byte(base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())), 0o600))
}

// provisioned is a line of `provision --json`, as a device reads it.
type provisioned struct {
	Name        string `json:"name"`
	KeyPackages []struct {
		Ref       string `json:"key_package_ref"`
		Message   []byte `json:"mls_message"`
		Confirmed *bool  `json:"confirmed"`
		Released  *struct {
			KEM        uint16 `json:"kem_id"`
			KDF        uint16 `json:"kdf_id"`
			AEAD       uint16 `json:"aead_id"`
			Info       []byte `json:"info"`
			AAD        []byte `json:"aad"`
			Enc        []byte `json:"enc"`
			Ciphertext []byte `json:"ciphertext"`
		} `json:"released"`
	} `json:"key_packages"`
}

// deviceOpens N KEY RESULTS opens what was released to the device with the key, by Go's HPKE and what
// docs/FORMATS.md says alone, finds the private keys to be those of the key packages, and asserts how
// many there are. Negated, none of them opens.
func deviceOpens(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: deviceopens N KEY RESULTS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	private := []byte(ts.ReadFile(args[1]))
	opened := 0
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[2])))
	for d.More() {
		var device provisioned
		ts.Check(d.Decode(&device))
		for _, k := range device.KeyPackages {
			r := k.Released
			if r == nil {
				continue
			}
			err := opensReleased(private, r.KEM, r.KDF, r.AEAD, r.Enc, r.Info, r.AAD, r.Ciphertext, k.Ref, k.Message)
			if (err != nil) != neg {
				ts.Fatalf("device %s, key package %s: err = %v", device.Name, k.Ref, err)
			}
			opened++
		}
	}
	if opened != want {
		ts.Fatalf("%d were released, want %d", opened, want)
	}
}

func opensReleased(private []byte, kemID, kdfID, aeadID uint16, enc, info, aad, ciphertext []byte, ref string, message []byte) error {
	kem, err := stdlib.NewKEM(kemID)
	if err != nil {
		return err
	}
	kdf, err := stdlib.NewKDF(kdfID)
	if err != nil {
		return err
	}
	aead, err := stdlib.NewAEAD(aeadID)
	if err != nil {
		return err
	}
	key, err := kem.NewPrivateKey(private)
	if err != nil {
		return err
	}
	recipient, err := stdlib.NewRecipient(enc, key, kdf, aead, info)
	if err != nil {
		return err
	}
	plaintext, err := recipient.Open(aad, ciphertext)
	if err != nil {
		return err
	}
	if hex.EncodeToString(aad) != ref {
		return fmt.Errorf("the additional data is %x", aad)
	}
	for range 2 {
		// A length of one byte, or of two that begin with 01 (RFC 9420, Section 2.1.2).
		n := int(plaintext[0])
		plaintext = plaintext[1:]
		if n >= 0x40 {
			n = (n-0x40)<<8 + int(plaintext[0])
			plaintext = plaintext[1:]
		}
		key, err := kem.NewPrivateKey(plaintext[:n])
		if err != nil {
			return err
		}
		if !bytes.Contains(message, key.PublicKey().Bytes()) {
			return fmt.Errorf("the key package has no key %x", key.PublicKey().Bytes())
		}
		plaintext = plaintext[n:]
	}
	if len(plaintext) > 0 {
		return fmt.Errorf("%d bytes follow the private keys", len(plaintext))
	}
	return nil
}
