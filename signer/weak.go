package signer

import (
	"context"
	"fmt"
	"strings"

	"github.com/hsm-kp/hsm-kp/token"
)

// WeakKeyError reports a key that the token does not keep as a signature key of
// an MLS client is to be kept: inside, and for signing only.
type WeakKeyError struct {
	ID         []byte   // CKA_ID
	Label      string   // CKA_LABEL
	Attributes []string // each with its fault: "CKA_EXTRACTABLE is true"
}

func (e *WeakKeyError) Error() string {
	return fmt.Sprintf("weak key %x labelled %q: %s", e.ID, e.Label, strings.Join(e.Attributes, ", "))
}

func (k *Key) requireStrong(ctx context.Context) error {
	a, err := k.signing.Attributes(ctx)
	if err != nil {
		return err
	}
	if weak := weaknesses(a); len(weak) > 0 {
		return &WeakKeyError{ID: k.ID(), Label: k.Label(), Attributes: weak}
	}
	return nil
}

// weaknesses names the attributes that are not what they should be. An attribute
// that the token does not tell is a fault where the key's safety hangs on it.
func weaknesses(a token.KeyAttributes) (weak []string) {
	for _, rule := range []struct {
		name       string
		value      *bool
		want       bool
		mustBeTold bool
	}{
		{"CKA_TOKEN", a.Token, true, true},
		{"CKA_PRIVATE", a.Private, true, true},
		{"CKA_SENSITIVE", a.Sensitive, true, true},
		{"CKA_EXTRACTABLE", a.Extractable, false, true},
		{"CKA_SIGN", a.Sign, true, true},
		// False where the key was outside of the token at any time.
		{"CKA_ALWAYS_SENSITIVE", a.AlwaysSensitive, true, false},
		{"CKA_NEVER_EXTRACTABLE", a.NeverExtractable, true, false},
		{"CKA_LOCAL", a.Local, true, false},
		// Another use of a signature key is a way to forge.
		{"CKA_DECRYPT", a.Decrypt, false, false},
		{"CKA_UNWRAP", a.Unwrap, false, false},
		{"CKA_DERIVE", a.Derive, false, false},
	} {
		switch {
		case rule.value == nil && rule.mustBeTold:
			weak = append(weak, rule.name+" is not told")
		case rule.value != nil && *rule.value != rule.want:
			weak = append(weak, fmt.Sprintf("%s is %t", rule.name, *rule.value))
		}
	}
	return weak
}
