package program

import (
	"bytes"
	"errors"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/keypackages"

	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
)

// Theirs decodes key packages for a test directory with mls-go, so that another library than the
// one that wrote them reads what the product sends.
func Theirs(b []byte) (directorytest.Decoded, error) {
	kp, err := keypackages.UnmarshalKeyPackage(b) // ignores what follows
	if err != nil {
		return directorytest.Decoded{}, err
	}
	encoded := kp.Marshal()
	if !bytes.HasPrefix(b, encoded) {
		return directorytest.Decoded{}, errors.New("mls-go does not encode what it decoded")
	}
	ref := ciphersuite.MakeKeyPackageRef(encoded, ciphersuite.CipherSuite(kp.CipherSuite).HashFunction())
	return directorytest.Decoded{Size: len(encoded), Ref: ref.AsSlice(), Identity: kp.LeafNode.Credential.Identity}, nil
}
