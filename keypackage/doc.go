// Package keypackage builds, parses and validates the key packages of MLS (RFC 9420, Section
// 10), and parses the messages that use them: Welcome and GroupInfo.
//
// The structs have the field names of the RFC. Decoding checks the presentation language
// (Section 2.1) and nothing else: it refuses input that is truncated, too long or not
// minimally encoded, and keeps unknown code points, GREASE values included (Section 13.5).
// So encoding what was decoded gives the same bytes.
//
// A KeyPackage is untrusted: anybody can make one. A Verified is one whose signatures were
// checked. Only a Builder and Validate return one.
//
// The package reads no clock and does no I/O: time and randomness are parameters. Functions
// may be called by several goroutines at once. The structs are plain data and safe for
// concurrent use while nothing changes them.
package keypackage
