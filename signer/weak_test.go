package signer

import (
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/token"
)

// strong has the attributes of a key of Generate.
func strong() token.KeyAttributes {
	yes := func() *bool { b := true; return &b }
	no := func() *bool { b := false; return &b }
	return token.KeyAttributes{
		Token: yes(), Private: yes(), Sensitive: yes(), AlwaysSensitive: yes(), Extractable: no(), NeverExtractable: yes(),
		Local: yes(), Sign: yes(), Decrypt: no(), Unwrap: no(), Derive: no(),
	}
}

func TestWeaknesses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*token.KeyAttributes)
		want   []string
	}{
		"as generated":        {func(*token.KeyAttributes) {}, nil},
		"extractable":         {func(a *token.KeyAttributes) { *a.Extractable = true }, []string{"CKA_EXTRACTABLE is true"}},
		"not sensitive":       {func(a *token.KeyAttributes) { *a.Sensitive = false }, []string{"CKA_SENSITIVE is false"}},
		"not private":         {func(a *token.KeyAttributes) { *a.Private = false }, []string{"CKA_PRIVATE is false"}},
		"not reported":        {func(a *token.KeyAttributes) { a.Extractable = nil }, []string{"CKA_EXTRACTABLE is not reported"}},
		"other use":           {func(a *token.KeyAttributes) { *a.Derive = true }, []string{"CKA_DERIVE is true"}},
		"origin not reported": {func(a *token.KeyAttributes) { a.Local, a.AlwaysSensitive, a.NeverExtractable = nil, nil, nil }, nil},
		"imported": {func(a *token.KeyAttributes) { *a.Local, *a.AlwaysSensitive, *a.NeverExtractable = false, false, false }, []string{
			"CKA_ALWAYS_SENSITIVE is false", "CKA_NEVER_EXTRACTABLE is false", "CKA_LOCAL is false",
		}},
		"nothing reported": {func(a *token.KeyAttributes) { *a = token.KeyAttributes{} }, []string{
			"CKA_TOKEN is not reported", "CKA_PRIVATE is not reported", "CKA_SENSITIVE is not reported", "CKA_EXTRACTABLE is not reported", "CKA_SIGN is not reported",
		}},
	} {
		a := strong()
		c.change(&a)
		if got := weaknesses(a); !slices.Equal(got, c.want) {
			t.Errorf("weaknesses() of a key %s = %q, want %q", name, got, c.want)
		}
	}
}

func TestWeakKeyErrorNamesTheAttributes(t *testing.T) {
	err := &WeakKeyError{ID: []byte{1, 2}, Label: "alice", Attributes: []string{"CKA_EXTRACTABLE is true", "CKA_LOCAL is false"}}
	for _, want := range []string{"0102", "alice", "CKA_EXTRACTABLE is true", "CKA_LOCAL is false"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Error() = %q, want %q in it", err, want)
		}
	}
}
