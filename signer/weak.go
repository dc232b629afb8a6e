package signer

import (
	"fmt"
	"strings"

	"github.com/hsm-kp/hsm-kp/token"
)

// WeakKeyError reports a key with attributes that a signature key of an MLS client must not
// have: it may leave the token, was not made there, or may do more than sign.
type WeakKeyError struct {
	ID         []byte   // CKA_ID
	Label      string   // CKA_LABEL
	Attributes []string // with their values: "CKA_EXTRACTABLE is true"
}

func (e *WeakKeyError) Error() string {
	return fmt.Sprintf("weak key %x labelled %q: %s", e.ID, e.Label, strings.Join(e.Attributes, ", "))
}

func (k *Key) requireStrong() error {
	if weak := weaknesses(k.signing.FoundAttributes()); len(weak) > 0 {
		return &WeakKeyError{ID: k.ID(), Label: k.Label(), Attributes: weak}
	}
	return nil
}

// weaknesses returns the attributes with wrong values, in words.
func weaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign, Want: true, Required: true},
		// Another use of a signature key would allow forgeries.
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}
