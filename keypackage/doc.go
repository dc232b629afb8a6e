// Package keypackage is the key package of MLS (RFC 9420, Section 10): its wire
// format with everything that is in it, a builder that signs one, and a
// validation that says what is wrong with one.
//
// The structs carry the field names of the RFC. Decoding is strict about the
// presentation language (Section 2.1) and about nothing else: it refuses input
// that is truncated, over-long or not minimally encoded, and keeps every code
// point that it does not know, GREASE included (Section 13.5), so that encoding
// gives back the same bytes.
//
// A KeyPackage is untrusted: anybody can make one. A Verified is one whose
// signatures were checked, and it comes only from a Builder or from Validate.
//
// The package is pure: it reads no clock and does no I/O. Time and randomness
// are parameters.
package keypackage
