package engine

import (
	"slices"
	"unsafe"
)

// PIN holds the bytes of a PIN.
type PIN struct {
	// If a PIN is in an unexported field of another struct, fmt calls no methods of it but
	// prints what it is made of. It prints a function as an address whatever the verb, and a
	// pointer only with most.
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

// Clear overwrites the PIN, which is empty then.
func (p PIN) Clear() {
	if p.bytes != nil {
		clear(*p.bytes())
		*p.bytes() = nil
	}
}

// text views the PIN as the string that miekg/pkcs11 takes. A copy could not be cleared, so
// there is none; the view ends before Clear.
func (p PIN) text() string {
	b := p.Reveal()
	return unsafe.String(unsafe.SliceData(b), len(b))
}
