package token

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"unsafe"
)

// PIN is a PIN of a token's user or security officer. It prints as REDACTED
// wherever a value is printed, logged or encoded.
type PIN struct {
	// Where a PIN is in an unexported field of another struct, fmt calls no
	// methods of it but prints what it is made of. It prints a function as an
	// address whatever the verb, and a pointer only with most.
	bytes func() *[]byte
}

// NewPIN returns a PIN of a copy of b. The caller clears b.
func NewPIN(b []byte) PIN {
	secret := slices.Clone(b)
	return PIN{func() *[]byte { return &secret }}
}

// Reveal returns the bytes of the PIN: those that Clear overwrites, not a copy.
func (p PIN) Reveal() []byte {
	if p.bytes == nil {
		return nil
	}
	return *p.bytes()
}

// Clear overwrites the PIN; it is empty then.
func (p PIN) Clear() {
	if p.bytes != nil {
		clear(*p.bytes())
		*p.bytes() = nil
	}
}

// text views the PIN as the string that miekg/pkcs11 takes. A copy could not be
// cleared, so there is none; the view ends before Clear.
func (p PIN) text() string {
	b := p.Reveal()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

const redacted = "REDACTED"

// String returns "REDACTED".
func (PIN) String() string { return redacted }

// GoString returns "REDACTED".
func (PIN) GoString() string { return redacted }

// Format prints "REDACTED" for every verb.
func (PIN) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "REDACTED".
func (PIN) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "REDACTED"; JSON and YAML encoders use it too.
func (PIN) MarshalText() ([]byte, error) { return []byte(redacted), nil }
