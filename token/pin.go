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
	// The bytes are behind a pointer so that a struct with a PIN in an unexported
	// field, where fmt calls no methods, prints an address and not the PIN.
	secret *secret
}

type secret struct{ bytes []byte }

// NewPIN returns a PIN of a copy of b. The caller clears b.
func NewPIN(b []byte) PIN { return PIN{&secret{slices.Clone(b)}} }

// Reveal returns the bytes of the PIN: those that Clear overwrites, not a copy.
func (p PIN) Reveal() []byte {
	if p.secret == nil {
		return nil
	}
	return p.secret.bytes
}

// Len returns the number of bytes.
func (p PIN) Len() int { return len(p.Reveal()) }

// Clear overwrites the PIN; it is empty then.
func (p PIN) Clear() {
	if p.secret != nil {
		clear(p.secret.bytes)
		p.secret.bytes = nil
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
