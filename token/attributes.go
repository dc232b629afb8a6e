package token

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// KeyAttributes are attributes of a private or secret key: how well it is kept and what it may do
// (PKCS#11, Section 4.9 ff.). Nil means that the token does not report the attribute.
type KeyAttributes struct {
	Token            *bool `json:"token,omitempty"`
	Private          *bool `json:"private,omitempty"`
	Sensitive        *bool `json:"sensitive,omitempty"`
	AlwaysSensitive  *bool `json:"always_sensitive,omitempty"`
	Extractable      *bool `json:"extractable,omitempty"`
	NeverExtractable *bool `json:"never_extractable,omitempty"`
	Local            *bool `json:"local,omitempty"`
	Modifiable       *bool `json:"modifiable,omitempty"`
	Sign             *bool `json:"sign,omitempty"`
	Encrypt          *bool `json:"encrypt,omitempty"`
	Decrypt          *bool `json:"decrypt,omitempty"`
	Wrap             *bool `json:"wrap,omitempty"`
	Unwrap           *bool `json:"unwrap,omitempty"`
	Derive           *bool `json:"derive,omitempty"`
}

// flags are the fields of the attributes.
func (a *KeyAttributes) flags() []flagField {
	return []flagField{
		{pkcs11.CKA_TOKEN, &a.Token},
		{pkcs11.CKA_PRIVATE, &a.Private},
		{pkcs11.CKA_SENSITIVE, &a.Sensitive},
		{pkcs11.CKA_ALWAYS_SENSITIVE, &a.AlwaysSensitive},
		{pkcs11.CKA_EXTRACTABLE, &a.Extractable},
		{pkcs11.CKA_NEVER_EXTRACTABLE, &a.NeverExtractable},
		{pkcs11.CKA_LOCAL, &a.Local},
		{pkcs11.CKA_MODIFIABLE, &a.Modifiable},
		{pkcs11.CKA_SIGN, &a.Sign},
		{pkcs11.CKA_ENCRYPT, &a.Encrypt},
		{pkcs11.CKA_DECRYPT, &a.Decrypt},
		{pkcs11.CKA_WRAP, &a.Wrap},
		{pkcs11.CKA_UNWRAP, &a.Unwrap},
		{pkcs11.CKA_DERIVE, &a.Derive},
	}
}

type flagField struct {
	attribute uint
	field     **bool
}

// keyFlags are the attributes of KeyAttributes.
var keyFlags = func() (all []uint) {
	for _, f := range new(KeyAttributes).flags() {
		all = append(all, f.attribute)
	}
	return all
}()

// privateFlags are those that private keys have: encrypting and wrapping belong to the public
// half.
var privateFlags = slices.DeleteFunc(slices.Clone(keyFlags), func(t uint) bool {
	return t == pkcs11.CKA_ENCRYPT || t == pkcs11.CKA_WRAP
})

// keyAttributes takes the attributes of a key out of what was read of it.
func (s session) keyAttributes(v engine.Values) (a KeyAttributes) {
	for _, f := range a.flags() {
		*f.field = s.FlagOf(v, f.attribute)
	}
	return a
}

func (s session) readKeyAttributes(o pkcs11.ObjectHandle) (KeyAttributes, error) {
	v, err := s.Read(o, keyFlags...)
	if err != nil {
		return KeyAttributes{}, err
	}
	return s.keyAttributes(v), nil
}

// AttributeRule says what an attribute of a key must be.
type AttributeRule struct {
	Name     string // such as "CKA_EXTRACTABLE"
	Value    *bool  // what the token reports
	Want     bool
	Required bool // a token that does not report it breaks the rule
}

// Custody returns the rules of a key that was made in its token and cannot leave it. They hold
// for signature keys and wrapping keys alike.
func (a KeyAttributes) Custody() []AttributeRule {
	return []AttributeRule{
		{"CKA_TOKEN", a.Token, true, true},
		{"CKA_PRIVATE", a.Private, true, true},
		{"CKA_SENSITIVE", a.Sensitive, true, true},
		{"CKA_EXTRACTABLE", a.Extractable, false, true},
		// False if the key was outside of the token at any time.
		{"CKA_ALWAYS_SENSITIVE", a.AlwaysSensitive, true, false},
		{"CKA_NEVER_EXTRACTABLE", a.NeverExtractable, true, false},
		{"CKA_LOCAL", a.Local, true, false},
	}
}

// Broken returns the broken rules in words, such as "CKA_EXTRACTABLE is true".
func Broken(rules ...AttributeRule) (faults []string) {
	for _, r := range rules {
		switch {
		case r.Value == nil && r.Required:
			faults = append(faults, r.Name+" is not reported")
		case r.Value != nil && *r.Value != r.Want:
			faults = append(faults, fmt.Sprintf("%s is %t", r.Name, *r.Value))
		}
	}
	return faults
}
