// Package stringer formats values that have a String method.
package stringer

import "fmt"

// Format implements fmt.Formatter for a type whose String method returns text and whose
// value is a number or bytes. Verbs v, s and q print the text. All other verbs and %#v
// print the value. Without it, package fmt prints the hexadecimal of the text under %x.
func Format(f fmt.State, verb rune, text string, value any) {
	if verb == 's' || verb == 'q' || verb == 'v' && !f.Flag('#') {
		value = text
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), value)
}
