//go:build !unix

// Package onecall is for Unix only: elsewhere Open fails, and callers use miekg/pkcs11.
package onecall

import "errors"

// Library is a loaded PKCS#11 library.
type Library struct{}

// Failed is a call that failed.
type Failed struct {
	Func string
	RV   uint
}

// Error returns the name of the function.
func (e *Failed) Error() string { return e.Func }

// GCM is what AES-GCM takes beside key and text.
type GCM struct {
	Mechanism uint
	IV, AAD   []byte
	TagBits   uint
}

// OAEP is what RSA-OAEP takes beside key and text.
type OAEP struct {
	Mechanism, Hash, MGF, Source uint
	Label                        []byte
}

var errUnix = errors.New("not on this system")

// Open fails.
func Open(string) (*Library, error) { return nil, errUnix }

// Several is unknown.
func (*Library) Several() bool { return false }

// Sign fails.
func (*Library) Sign(_, _ uint, _ []byte, _ uint, _, _ []byte) ([]byte, error) { return nil, errUnix }

// EncryptGCM fails.
func (*Library) EncryptGCM(_, _ uint, _ GCM, _, _ []byte) ([]byte, error) { return nil, errUnix }

// DecryptGCM fails.
func (*Library) DecryptGCM(_, _ uint, _ GCM, _, _ []byte) ([]byte, error) { return nil, errUnix }

// DecryptOAEP fails.
func (*Library) DecryptOAEP(_, _ uint, _ OAEP, _, _ []byte) ([]byte, error) { return nil, errUnix }

// Wrap fails.
func (*Library) Wrap(_, _, _, _ uint, _ []byte) ([]byte, error) { return nil, errUnix }

// Attribute fails.
func (*Library) Attribute(_, _, _ uint, _ []byte) ([]byte, error) { return nil, errUnix }

// MaxAttributes is the largest number of attributes that Attributes takes.
const MaxAttributes = 32

// Unavailable is the length of a value that the token does not show.
const Unavailable = ^uint(0)

// Attributes fails.
func (*Library) Attributes(_, _ uint, _, _ []uint) ([]byte, error) { return nil, errUnix }
