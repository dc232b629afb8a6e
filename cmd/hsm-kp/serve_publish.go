package main

import (
	"context"
	"errors"
	"fmt"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/server"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// publishFor publishes for a caller of the service.
func (e *env) publishFor(ctx context.Context, record *store.Identity, name string, n int) (server.Publication, error) {
	p, err := e.PublishSome(ctx, record, name, n)
	if p.Directory == "" && err != nil {
		return server.Publication{}, fmt.Errorf("%w: %w", server.ErrDirectory, err)
	}
	out := server.Publication{Directory: p.Directory}
	for _, s := range p.Sent {
		out.Sent = append(out.Sent, server.Sent{Ref: s.Ref, Reason: reasonOf(s.Err), Err: s.Err})
	}
	return out, err
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
