package token

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// PIN is a PIN of a token's user or security officer. It prints as REDACTED
// if a value is printed, logged or encoded.
type PIN struct{ secret engine.PIN }

// NewPIN returns a PIN of a copy of b. The caller clears b.
func NewPIN(b []byte) PIN { return PIN{engine.NewPIN(b)} }

// Reveal returns the bytes of the PIN: those that Clear overwrites, not a copy.
func (p PIN) Reveal() []byte { return p.secret.Reveal() }

// Clear overwrites the PIN, which is empty then.
func (p PIN) Clear() { p.secret.Clear() }

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
