package vault

import (
	"github.com/hsm-kp/hsm-kp/token"
)

// weaknesses returns the attributes that break custody, in words.
func weaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_ENCRYPT", Value: a.Encrypt, Want: true, Required: true},
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt, Want: true, Required: true},
		// A key that also wraps would decrypt what it wrapped, and take keys out.
		token.AttributeRule{Name: "CKA_WRAP", Value: a.Wrap},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}

// wrappingWeaknesses returns those of a key that wraps.
func wrappingWeaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_WRAP", Value: a.Wrap, Want: true, Required: true},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap, Want: true, Required: true},
		// A key that also decrypts would take out what it wrapped.
		token.AttributeRule{Name: "CKA_ENCRYPT", Value: a.Encrypt},
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt},
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}

// decryptionWeaknesses returns those of an RSA key.
func decryptionWeaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt, Want: true, Required: true},
		// A key that also unwraps would bring in keys that others made.
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		// An RSA signature is a decryption.
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}

// stampingWeaknesses returns those of a key that makes the stamps of an RSA key.
func stampingWeaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign, Want: true, Required: true},
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}
