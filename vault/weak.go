package vault

import (
	"fmt"

	"github.com/hsm-kp/hsm-kp/token"
)

// weaknesses names the attributes that break custody. One that the token does not
// tell is a fault where custody hangs on it.
func weaknesses(a token.KeyAttributes) (faults []string) {
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
		{"CKA_ENCRYPT", a.Encrypt, true, true},
		{"CKA_DECRYPT", a.Decrypt, true, true},
		// False where the key was outside of the token at any time.
		{"CKA_ALWAYS_SENSITIVE", a.AlwaysSensitive, true, false},
		{"CKA_NEVER_EXTRACTABLE", a.NeverExtractable, true, false},
		{"CKA_LOCAL", a.Local, true, false},
		// A key that wraps others too decrypts what it wrapped: it takes them out.
		{"CKA_WRAP", a.Wrap, false, false},
		{"CKA_UNWRAP", a.Unwrap, false, false},
		{"CKA_SIGN", a.Sign, false, false},
		{"CKA_DERIVE", a.Derive, false, false},
	} {
		switch {
		case rule.value == nil && rule.mustBeTold:
			faults = append(faults, rule.name+" is not told")
		case rule.value != nil && *rule.value != rule.want:
			faults = append(faults, fmt.Sprintf("%s is %t", rule.name, *rule.value))
		}
	}
	return faults
}
