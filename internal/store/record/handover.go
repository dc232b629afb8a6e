package record

import (
	"bytes"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Releasable fails if the private keys of a key package may not be handed over to the device with
// a release digest.
func (r *Row) Releasable(digest []byte) error {
	switch {
	case len(r.ReleaseDigest) == 0:
		return fmt.Errorf("%w: it is not for release", store.ErrState)
	case !bytes.Equal(r.ReleaseDigest, digest):
		return store.ErrOtherRelease
	case r.State == store.Erased:
		return store.ErrErased
	case len(r.Sealed) == 0:
		return fmt.Errorf("%w: its device has them, and they are erased here", store.ErrState)
	}
	return nil
}

// Confirmable reports whether it changes anything that a device confirms its private keys: the
// second time, or once they are erased, it does not. The error is store.ErrState for a key package
// that was not handed over.
func (r *Row) Confirmable() (changes bool, err error) {
	if len(r.ReleaseDigest) == 0 || r.HandedOverAt.IsZero() {
		return false, fmt.Errorf("%w: it was not handed over to a device", store.ErrState)
	}
	return len(r.Sealed) > 0, nil
}

// HandedOverEntry is the entry of a key package whose private keys a device is about to get.
func HandedOverEntry(r *Row, at time.Time) audit.Entry {
	e := EntryOf(&r.KeyPackage, audit.HandedOver, at)
	e.Detail = fmt.Sprintf("release key %x", r.ReleaseDigest)
	return e
}
