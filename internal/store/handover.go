package store

import (
	"context"
	"errors"
	"time"
)

// Errors of key packages whose private keys are for a device.
var (
	// ErrForDevice reports a key package whose private keys belong to its device alone: nobody
	// opens a Welcome with it here.
	ErrForDevice = errors.New("its private keys are its device's alone")
	// ErrOtherRelease reports private keys that may be released only to another public key.
	ErrOtherRelease = errors.New("its private keys may be released to another key only")
)

// Handovers remembers private keys that are released to devices.
//
// A key package with a ReleaseDigest has its private keys, sealed like those of all others, until
// their device has them. No Welcome reserves or opens it here. It is handed out, retired and
// expired like all others.
type Handovers interface {
	// HandOver records that private keys are about to be given to the device with this release
	// digest, all or none, and is durable when it returns. It may be recorded again for the same
	// device, until it is confirmed; the first time stays. The error is ErrNotFound,
	// ErrOtherRelease, ErrErased, or ErrState for a key package that is not for release, or is
	// confirmed.
	HandOver(ctx context.Context, refs [][]byte, digest []byte, at time.Time) error
	// ConfirmHandover erases the private keys of key packages whose devices have them, all or
	// none, in one transaction. A key package whose private keys are erased already stays as it
	// is. It returns how many were erased. The error is ErrNotFound, or ErrState for a key
	// package that was not handed over.
	ConfirmHandover(ctx context.Context, refs [][]byte, at time.Time) (erased uint64, err error)
}
