package vault

import (
	"github.com/hsm-kp/hsm-kp/token"
)

// weaknesses names the attributes that break custody.
func weaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_ENCRYPT", Value: a.Encrypt, Want: true, MustBeTold: true},
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt, Want: true, MustBeTold: true},
		// A key that wraps others too decrypts what it wrapped: it takes them out.
		token.AttributeRule{Name: "CKA_WRAP", Value: a.Wrap},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}

// wrappingWeaknesses are those of a key that wraps.
func wrappingWeaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_WRAP", Value: a.Wrap, Want: true, MustBeTold: true},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap, Want: true, MustBeTold: true},
		// A key that decrypts too takes out what it wrapped.
		token.AttributeRule{Name: "CKA_ENCRYPT", Value: a.Encrypt},
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt},
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}

// decryptionWeaknesses are those of an RSA key.
func decryptionWeaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt, Want: true, MustBeTold: true},
		// One that unwraps too brings in keys of others' making.
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		// An RSA signature is a decryption.
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}

// stampingWeaknesses are those of a key that makes the stamps of an RSA key.
func stampingWeaknesses(a token.KeyAttributes) []string {
	return token.Broken(append(a.Custody(),
		token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign, Want: true, MustBeTold: true},
		token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt},
		token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap},
		token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive},
	)...)
}
