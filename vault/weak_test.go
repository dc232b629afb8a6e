package vault

import (
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/token"
)

func told(v bool) *bool { return &v }

// strong has the attributes of the wrapping keys of this package.
func strong() token.KeyAttributes {
	return token.KeyAttributes{
		Token: told(true), Private: told(true), Sensitive: told(true), Extractable: told(false),
		AlwaysSensitive: told(true), NeverExtractable: told(true), Local: told(true),
		Encrypt: told(true), Decrypt: told(true),
		Wrap: told(false), Unwrap: told(false), Sign: told(false), Derive: told(false),
	}
}

func TestWrappingKeysThatBreakCustodyAreNamed(t *testing.T) {
	for want, change := range map[string]func(*token.KeyAttributes){
		"CKA_TOKEN is false":              func(a *token.KeyAttributes) { a.Token = told(false) },
		"CKA_PRIVATE is false":            func(a *token.KeyAttributes) { a.Private = told(false) },
		"CKA_SENSITIVE is false":          func(a *token.KeyAttributes) { a.Sensitive = told(false) },
		"CKA_SENSITIVE is not reported":   func(a *token.KeyAttributes) { a.Sensitive = nil },
		"CKA_EXTRACTABLE is true":         func(a *token.KeyAttributes) { a.Extractable = told(true) },
		"CKA_EXTRACTABLE is not reported": func(a *token.KeyAttributes) { a.Extractable = nil },
		"CKA_ENCRYPT is false":            func(a *token.KeyAttributes) { a.Encrypt = told(false) },
		"CKA_DECRYPT is false":            func(a *token.KeyAttributes) { a.Decrypt = told(false) },
		"CKA_ALWAYS_SENSITIVE is false":   func(a *token.KeyAttributes) { a.AlwaysSensitive = told(false) },
		"CKA_NEVER_EXTRACTABLE is false":  func(a *token.KeyAttributes) { a.NeverExtractable = told(false) },
		"CKA_LOCAL is false":              func(a *token.KeyAttributes) { a.Local = told(false) },
		"CKA_WRAP is true":                func(a *token.KeyAttributes) { a.Wrap = told(true) },
		"CKA_UNWRAP is true":              func(a *token.KeyAttributes) { a.Unwrap = told(true) },
		"CKA_SIGN is true":                func(a *token.KeyAttributes) { a.Sign = told(true) },
		"CKA_DERIVE is true":              func(a *token.KeyAttributes) { a.Derive = told(true) },
	} {
		a := strong()
		change(&a)
		if got := weaknesses(a); !slices.Equal(got, []string{want}) {
			t.Errorf("weaknesses() = %q, want %q alone", got, want)
		}
	}
}

func TestAttributesThatATokenNeedNotTell(t *testing.T) {
	a := strong()
	a.AlwaysSensitive, a.NeverExtractable, a.Local, a.Wrap, a.Unwrap, a.Sign, a.Derive = nil, nil, nil, nil, nil, nil, nil
	if got := weaknesses(a); len(got) > 0 {
		t.Errorf("weaknesses() = %q, want none", got)
	}
	if got := weaknesses(token.KeyAttributes{}); len(got) == 0 {
		t.Error("weaknesses() of a key without attributes = none, want some")
	}
}
