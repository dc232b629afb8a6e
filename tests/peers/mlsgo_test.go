// Package peers hands the key packages of hsm-kp to other MLS libraries: a
// second pair of eyes on every byte.
package peers

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"testing"

	mlsgo "github.com/thomas-vilte/mls-go"
	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/framing"
	"github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// mlsGoSuites are the suites of hsm-kp that mls-go v1.6.0 has. The test below
// holds it to lacking the others, so that a version that learns them is noticed.
var mlsGoSuites = []struct {
	number string
	suite  ciphersuite.CipherSuite
	curve  ecdh.Curve
}{
	{"1", 1, ecdh.X25519()},
	{"2", 2, ecdh.P256()},
	{"3", 3, ecdh.X25519()},
	{"5", 5, ecdh.P521()},
}

func TestMLSGoLacksTheOtherSuites(t *testing.T) {
	for _, s := range []ciphersuite.CipherSuite{4, 6, 7} {
		if s.IsSupported() {
			t.Errorf("mls-go supports suite %d now: add it to mlsGoSuites", s)
		}
	}
}

func TestMLSGoTakesOurKeyPackages(t *testing.T) {
	i := program.Install(t)
	for _, s := range mlsGoSuites {
		t.Run("suite "+s.number, func(t *testing.T) {
			name := "member-" + s.number
			i.Run("identity", "create", name, "--suite", s.number)
			unwrapped := i.Unwrap(i.Generate(name, "1")[0])
			encoded, err := hex.DecodeString(unwrapped.EncodedKeyPackage)
			if err != nil {
				t.Fatal(err)
			}
			kp := mlsGoAccepts(t, encoded, s.suite)
			client, groupID, welcome := mlsGoAdds(t, encoded, s.suite)
			joined := mlsGoJoins(t, kp, unwrapped, s.curve, welcome)

			theirs, err := client.EpochAuthenticator(t.Context(), groupID)
			if err != nil {
				t.Fatalf("EpochAuthenticator() err = %v, want nil", err)
			}
			if !bytes.Equal(joined.EpochAuthenticator(), theirs) {
				t.Errorf("epoch authenticator of the member we keep the keys of = %x, of its group %x", joined.EpochAuthenticator(), theirs)
			}
		})
	}
}

// mlsGoAccepts decodes, validates and verifies a key package.
func mlsGoAccepts(t *testing.T, encoded []byte, suite ciphersuite.CipherSuite) *keypackages.KeyPackage {
	t.Helper()
	kp, err := keypackages.UnmarshalKeyPackage(encoded)
	if err != nil {
		t.Fatalf("UnmarshalKeyPackage() err = %v, want nil", err)
	}
	if err := kp.Validate(); err != nil {
		t.Errorf("Validate() err = %v, want nil", err)
	}
	if err := kp.Verify(suite); err != nil {
		t.Errorf("Verify() err = %v, want nil", err)
	}
	if again := kp.Marshal(); !bytes.Equal(again, encoded) {
		t.Errorf("Marshal() = %x, want %x", again, encoded)
	}
	return kp
}

// mlsGoAdds adds the key package to a new group and returns its Welcome.
func mlsGoAdds(t *testing.T, encoded []byte, suite ciphersuite.CipherSuite) (*mlsgo.Client, []byte, *group.Welcome) {
	t.Helper()
	client, err := mlsgo.NewClient([]byte("founder"), suite)
	if err != nil {
		t.Fatalf("NewClient() err = %v, want nil", err)
	}
	groupID, err := client.CreateGroup(t.Context())
	if err != nil {
		t.Fatalf("CreateGroup() err = %v, want nil", err)
	}
	_, encodedWelcome, err := client.InviteMember(t.Context(), groupID, encoded)
	if err != nil {
		t.Fatalf("InviteMember() err = %v, want nil", err)
	}
	raw := encodedWelcome
	if message, err := framing.UnmarshalMLSMessage(encodedWelcome); err == nil {
		raw = message.Welcome
	}
	welcome, err := group.UnmarshalWelcome(raw)
	if err != nil {
		t.Fatalf("UnmarshalWelcome() err = %v, want nil", err)
	}
	return client, groupID, welcome
}

// mlsGoJoins joins with the private keys that came back from the token. The
// signature key stays in there: joining does not need it.
func mlsGoJoins(t *testing.T, kp *keypackages.KeyPackage, u program.Unwrapped, curve ecdh.Curve, welcome *group.Welcome) *group.Group {
	t.Helper()
	keys := &keypackages.KeyPackagePrivateKeys{
		InitKey:       privateKey(t, curve, u.InitKey),
		EncryptionKey: privateKey(t, curve, u.EncryptionKey),
	}
	joined, err := group.JoinFromWelcome(welcome, kp, keys, nil)
	if err != nil {
		t.Fatalf("JoinFromWelcome() err = %v, want nil", err)
	}
	return joined
}

func privateKey(t *testing.T, curve ecdh.Curve, text string) *ecdh.PrivateKey {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	key, err := curve.NewPrivateKey(raw)
	if err != nil {
		t.Fatalf("NewPrivateKey() err = %v, want nil", err)
	}
	return key
}
