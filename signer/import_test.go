package signer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

// importKey puts a key that was made outside into the token.
func importKey(t *testing.T, cfg token.Config) {
	t.Helper()
	tool, err := exec.LookPath("softhsm2-util")
	if err != nil {
		t.Skip(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	pin, err := cfg.PIN.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "--import", path, "--serial", cfg.Serial,
		"--pin", string(pin.Reveal()), "--label", "imported", "--id", "A1B2").CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util err = %v, want nil: %s", err, out)
	}
}

func TestKeyThatWasOutsideIsRefusedUnlessAllowed(t *testing.T) {
	cfg := softhsmtest.Config(t)
	importKey(t, cfg)
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	q := token.KeyQuery{ID: []byte{0xA1, 0xB2}}
	_, err = signer.Find(t.Context(), tok, q)
	weak, ok := errors.AsType[*signer.WeakKeyError](err)
	if !ok || !slices.Contains(weak.Attributes, "CKA_LOCAL is false") {
		t.Fatalf("Find() err = %v, want a *WeakKeyError that names CKA_LOCAL", err)
	}
	k, err := signer.Find(t.Context(), tok, q, signer.AllowWeak())
	if err != nil {
		t.Fatalf("Find() with AllowWeak() err = %v, want nil", err)
	}
	if k.Scheme() != ciphersuite.ECDSA_SECP256R1_SHA256 || k.Label() != "imported" {
		t.Errorf("Find() = %v labelled %q, want the imported P-256 key", k.Scheme(), k.Label())
	}
	list, err := signer.List(t.Context(), tok)
	if err != nil || len(list) != 1 || !slices.Equal(list[0].Weak, weak.Attributes) {
		t.Errorf("List() = %+v, %v, want the key with its weaknesses", list, err)
	}
}
