package main

import (
	"context"
	"errors"
	"fmt"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/server"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// publishFor publishes for a caller of the service as `hsm-kp publish` does: at most n key
// packages, and those of last resort. What ctx leaves no time for stays pending, and is no error.
func (d *directories) publishFor(ctx context.Context, record *store.Identity, name string, n int) (server.Publication, error) {
	dir, err := d.directoryNamed(name, record.Name)
	if err != nil {
		return server.Publication{}, fmt.Errorf("%w: %w", server.ErrDirectory, err)
	}
	out := server.Publication{Directory: dir.Name}
	run := newPublication(d)
	run.told = func(_ config.Directory, k *store.Dispatched, err error) error {
		out.Sent = append(out.Sent, server.Sent{Ref: k.Ref, Reason: reasonOf(err), Err: err})
		return nil
	}
	if n > 0 {
		err = run.some(ctx, dir, store.Dispatch{Identity: record.Name, N: n}, record)
	}
	if err == nil {
		err = run.some(ctx, dir, store.Dispatch{Identity: record.Name, LastResort: true}, record)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return out, errors.Join(err, run.giveBack(context.WithoutCancel(ctx)))
}

// reasonOf is what callers are told of a key package that was sent.
func reasonOf(err error) hsmkpv1.Reason {
	switch {
	case err == nil:
		return hsmkpv1.Reason_REASON_UNSPECIFIED
	case errors.Is(err, directory.ErrRefused):
		return hsmkpv1.Reason_REASON_REFUSED
	case errors.Is(err, inventory.ErrMixedUp):
		return hsmkpv1.Reason_REASON_INTEGRITY
	}
	return hsmkpv1.Reason_REASON_DIRECTORY
}
