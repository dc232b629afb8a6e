package vectors

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

type openable struct {
	CipherSuite  uint16 `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  octets `json:"psk_id"`
		PSK octets
	} `json:"external_psks"`
	KeyPackage                octets `json:"key_package"`
	InitPriv                  octets `json:"init_priv"`
	Welcome                   octets
	RatchetTree               octets `json:"ratchet_tree"`
	SignerPub                 octets `json:"signer_pub"`
	InitialEpochAuthenticator octets `json:"initial_epoch_authenticator"`
}

// psk finds an external PSK of the vector.
func (v *openable) psk(id welcome.PSKID) ([]byte, bool) {
	for _, p := range v.ExternalPSKs {
		if id.Type == welcome.PSKExternal && bytes.Equal(p.ID, id.ID) {
			return p.PSK, true
		}
	}
	return nil, false
}

// Every Welcome of the vectors opens, with the epoch authenticator and the signer that the vectors
// give. Without its PSKs, the error names those that it needs.
func TestWelcomesOpen(t *testing.T) {
	for file, want := range map[string]struct{ opened, withPSK, signatures int }{
		"welcome":                        {7, 0, 0},
		"passive-client-welcome":         {56, 28, 56},
		"passive-client-handling-commit": {91, 91, 91},
	} {
		t.Run(file, func(t *testing.T) {
			got := want
			got.opened, got.withPSK, got.signatures = 0, 0, 0
			for _, v := range load[openable](t, file) {
				opened := openVector(t, &v)
				got.opened++
				if opened.SignatureVerified {
					got.signatures++
				}
				if len(opened.PSKs) > 0 {
					got.withPSK++
				}
			}
			if got != want {
				t.Errorf("opened, with PSKs, with signatures = %v, want %v", got, want)
			}
		})
	}
}

func openVector(t *testing.T, v *openable) *welcome.Opened {
	t.Helper()
	suite, ok := served(v.CipherSuite)
	if !ok {
		t.Fatalf("unknown suite %d", v.CipherSuite)
	}
	kp, err := keypackage.ParseMessage(v.KeyPackage)
	if err != nil {
		t.Fatal(err)
	}
	message, err := keypackage.ParseMessage(v.Welcome)
	if err != nil {
		t.Fatal(err)
	}
	w, err := keypackage.ParseWelcome(message.Body)
	if err != nil {
		t.Fatalf("ParseWelcome() err = %v, want nil", err)
	}
	init, err := hpke.ParsePrivateKey(suite, v.InitPriv)
	if err != nil {
		t.Fatal(err)
	}
	options := welcome.Options{PSK: v.psk}
	if len(v.RatchetTree) > 0 {
		options.RatchetTree = v.RatchetTree
	}
	opened, err := welcome.Open(w, kp.KeyPackage, init, options)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	if v.InitialEpochAuthenticator != nil {
		wantEqual(t, "EpochAuthenticator", opened.EpochAuthenticator, v.InitialEpochAuthenticator)
	}
	if v.SignerPub != nil {
		if err := opened.GroupInfo.Verify(suite, v.SignerPub); err != nil {
			t.Errorf("GroupInfo.Verify() err = %v, want nil", err)
		}
	}
	again, err := keypackage.ParseGroupInfo(opened.GroupInfo.Bytes())
	if err != nil {
		t.Fatalf("ParseGroupInfo() err = %v, want nil", err)
	}
	wantEqual(t, "GroupInfo.Bytes()", again.Bytes(), opened.GroupInfo.Bytes())
	ref, err := kp.KeyPackage.Ref()
	if err != nil {
		t.Fatal(err)
	}
	secrets, _ := welcome.Find(w, ref)
	plaintext, err := hpke.DecryptWithLabel(init, "Welcome", w.EncryptedGroupInfo, secrets.KEMOutput, secrets.Ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "GroupSecrets()", opened.GroupSecrets(), plaintext)
	if len(opened.PSKs) > 0 {
		_, err := welcome.Open(w, kp.KeyPackage, init, welcome.Options{})
		if e, ok := errors.AsType[*welcome.MissingPSKError](err); !ok || len(e.Missing) != len(opened.PSKs) {
			t.Errorf("Open() without PSKs err = %v, want a *MissingPSKError of %d", err, len(opened.PSKs))
		}
	}
	return opened
}
