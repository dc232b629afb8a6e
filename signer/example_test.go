package signer_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// issue makes a token in dir, and a key package that the token signed. The file kp gets
// the key package in an MLSMessage, the file sealed its private keys, which only the
// token opens.
func issue(ctx context.Context, dir string) error {
	hsm, err := softhsm.Create(ctx, dir, softhsm.Options{})
	if err != nil {
		return err
	}
	tok, err := hsm.Open(ctx, token.Config{})
	if err != nil {
		return err
	}
	defer tok.Close()
	suite, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519)
	key, err := signer.Generate(ctx, tok, suite.Signature, nil, "alice")
	if err != nil {
		return err
	}
	custody, _, err := vault.New(ctx, tok, rand.Reader, nil, "wrapping key")
	if err != nil {
		return err
	}
	now := uint64(time.Now().Unix())
	builder, err := keypackage.NewBuilder(keypackage.Template{
		Suite:        suite,
		Credential:   keypackage.BasicCredential([]byte("alice@example.com")),
		Capabilities: keypackage.DefaultCapabilities(suite),
		Lifetime:     keypackage.Lifetime{NotBefore: now - 3600, NotAfter: now + 90*24*3600},
	}, key)
	if err != nil {
		return err
	}
	fresh, err := custody.Generate(ctx, rand.Reader, suite)
	if err != nil {
		return err
	}
	defer fresh.Clear()
	kp, err := builder.Build(rand.Reader, fresh.InitKey(), fresh.EncryptionKey())
	if err != nil {
		return err
	}
	sealed, err := fresh.Seal(ctx, rand.Reader, vault.Binding{Ref: kp.Ref(), Suite: suite})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "sealed"), sealed, 0o600),
		os.WriteFile(filepath.Join(dir, "kp"), kp.Message(), 0o600))
}

// withKeys calls use with the key package in dir and its private keys.
func withKeys(ctx context.Context, dir string, use func(*keypackage.KeyPackage, vault.Keys) error) error {
	hsm, err := softhsm.Load(dir)
	if err != nil {
		return err
	}
	tok, err := hsm.Open(ctx, token.Config{})
	if err != nil {
		return err
	}
	defer tok.Close()
	encoded, errKP := os.ReadFile(filepath.Join(dir, "kp"))
	sealed, errSealed := os.ReadFile(filepath.Join(dir, "sealed"))
	if err := errors.Join(errKP, errSealed); err != nil {
		return err
	}
	message, err := keypackage.ParseMessage(encoded)
	if err != nil {
		return err
	}
	kp := message.KeyPackage
	ref, err := kp.Ref()
	if err != nil {
		return err
	}
	blob, err := vault.ParseBlob(sealed) // it names the wrapping key
	if err != nil {
		return err
	}
	custody, err := vault.Open(ctx, tok, blob.KeyID)
	if err != nil {
		return err
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	binding := vault.Binding{Ref: ref, Suite: suite, InitKey: kp.InitKey, EncryptionKey: kp.LeafNode.EncryptionKey}
	keys, err := custody.Keys(ctx, binding, sealed)
	if err != nil {
		return err
	}
	defer keys.Clear()
	return use(kp, keys)
}

// A key package whose signature key and private keys are in the custody of a token.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := issue(ctx, dir); err != nil {
		log.Fatal(err)
	}
	err = withKeys(ctx, dir, func(kp *keypackage.KeyPackage, keys vault.Keys) error {
		report := keypackage.Validate(kp, keypackage.Policy{Now: uint64(time.Now().Unix())})
		fmt.Println(kp.CipherSuite, report.OK(), report.Findings)

		// What is encrypted to the key package opens with its private key.
		suite, _ := ciphersuite.Lookup(kp.CipherSuite)
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(suite, kp.InitKey, "Welcome", nil, []byte("group secrets"))
		if err != nil {
			return err
		}
		plaintext, err := hpke.DecryptWithLabel(keys.Init, "Welcome", nil, kemOutput, ciphertext)
		fmt.Printf("%s\n", plaintext)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 true []
	// group secrets
}
