package welcome_test

import (
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// A client joins with its key package and the private key of its init_key.
func ExampleOpen() {
	var kp *keypackage.KeyPackage
	var init hpke.PrivateKey
	encoded, err := os.ReadFile("welcome.mls")
	if err != nil {
		log.Fatal(err)
	}
	message, err := keypackage.DecodeWelcome(encoded)
	if err != nil {
		log.Fatal(err)
	}
	opened, err := welcome.Open(message, kp, init, welcome.Options{})
	if errors.Is(err, welcome.ErrNotForIt) {
		log.Fatal("it is for somebody else")
	}
	if err != nil {
		log.Fatal(err)
	}
	defer opened.Clear()
	fmt.Printf("group %x at epoch %d\n", opened.GroupInfo.GroupContext.GroupID, opened.GroupInfo.GroupContext.Epoch)
}
