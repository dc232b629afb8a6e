package lifecycle

import (
	"pgregory.net/rapid"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// handOver gives private keys to a device, which may not be the one they are for.
func (w *walk) handOver(t *rapid.T) {
	ref, k := w.pick(t)
	device := rapid.SampledFrom([]string{"d1", "d2"}).Draw(t, "device")
	err := w.store.HandOver(t.Context(), [][]byte{[]byte(ref)}, []byte(device), w.now)
	switch {
	case k.device == "":
		want(t, err, store.ErrState)
	case k.device != device:
		want(t, err, store.ErrOtherRelease)
	case k.state == store.Erased:
		want(t, err, store.ErrErased)
	case k.confirmed:
		want(t, err, store.ErrState)
	default:
		want(t, err, nil)
		w.written(k, store.HandOver)
		w.step(t, k, store.HandOver, k.state)
		k.handedOver = true
	}
}

// confirm erases what a device has. Confirming again is not an error.
func (w *walk) confirm(t *rapid.T) {
	ref, k := w.pick(t)
	n, err := w.store.ConfirmHandover(t.Context(), [][]byte{[]byte(ref)}, w.now)
	if !k.handedOver {
		want(t, err, store.ErrState)
		return
	}
	want(t, err, nil)
	if (n == 1) != k.sealed {
		t.Fatalf("ConfirmHandover() erased %d, and it is %+v", n, *k)
	}
	w.written(k, store.Confirm)
	if k.sealed {
		w.step(t, k, store.Confirm, k.state)
		k.sealed, k.confirmed = false, true
	}
}
