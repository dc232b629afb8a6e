// Package needle searches for secrets in what was written, printed or sent, in the forms in which
// they might leak.
package needle

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// Needle is a secret in one of its forms.
type Needle struct {
	what  string
	bytes []byte
}

// Of returns the forms of a secret of 32 bytes or more: raw, hexadecimal and base64. Parts of it
// suffice.
func Of(t *testing.T, what string, raw []byte) []Needle {
	t.Helper()
	if len(raw) < 32 {
		t.Fatalf("%s has %d bytes: that is no secret", what, len(raw))
	}
	text := hex.EncodeToString(raw[:16])
	all := []Needle{
		{what + " raw", raw[:16]}, {what + " raw, second half", raw[16:32]},
		{what + " in hexadecimal", []byte(text)}, {what + " in capital hexadecimal", []byte(strings.ToUpper(text))},
	}
	// In base64, a key in the middle of other data can be split into groups of three bytes in three
	// ways.
	for shift := range 3 {
		part := raw[shift : shift+15]
		all = append(all, Needle{what + " in base64", []byte(base64.StdEncoding.EncodeToString(part))},
			Needle{what + " in base64 for URLs", []byte(base64.URLEncoding.EncodeToString(part))})
	}
	return all
}

// OfHex is like Of for a secret in hexadecimal.
func OfHex(t *testing.T, what, text string) []Needle {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatalf("%s is %q, not a secret", what, text)
	}
	return Of(t, what, raw)
}

// Text returns a needle for a secret that is a text, such as a PIN.
func Text(what, text string) Needle { return Needle{what, []byte(text)} }

// Search fails the test for each needle that data contains.
func Search(t *testing.T, where string, data []byte, needles []Needle) {
	t.Helper()
	for _, n := range needles {
		if bytes.Contains(data, n.bytes) {
			t.Errorf("%s has the %s", where, n.what)
		}
	}
}

// Found reports whether data contains one of the needles.
func Found(data []byte, needles []Needle) bool {
	for _, n := range needles {
		if bytes.Contains(data, n.bytes) {
			return true
		}
	}
	return false
}
