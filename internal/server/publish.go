package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

// Publish implements KeyPackageService.
func (s *Server) Publish(ctx context.Context, r *connect.Request[hsmkpv1.PublishRequest]) (*connect.Response[hsmkpv1.PublishResponse], error) {
	ctx, err := s.admit(ctx, act.Publish, r.Msg.GetIdentity(), 0)
	if err != nil {
		return nil, err
	}
	count := r.Msg.GetCount()
	if count > s.Limits.Batch {
		return nil, malformed(fmt.Sprintf("count is more than %d", s.Limits.Batch))
	}
	name := r.Msg.GetIdentity()
	if count == 0 {
		all, err := s.Operator.Publishable(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		count = uint32(min(all, uint64(s.Limits.Batch)))
	}
	if ctx, err = s.admit(ctx, act.Publish, name, uint64(max(count, 1))); err != nil {
		return nil, err
	}
	sending, cancel := timeToAnswer(ctx)
	defer cancel()
	p, err := s.Operator.PublishSome(sending, name, r.Msg.GetDirectory(), int(count))
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return connect.NewResponse(s.published(name, p)), nil
}

// timeToAnswer returns a context that ends a little before ctx does, which leaves time to record
// the outcome and to answer.
func timeToAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/10))
}

// reasons are what callers get for a key package that a directory has not acknowledged.
var reasons = []struct {
	of error
	as hsmkpv1.Reason
}{
	{directory.ErrRefused, hsmkpv1.Reason_REASON_REFUSED},
	{inventory.ErrMixedUp, hsmkpv1.Reason_REASON_INTEGRITY},
}

func reasonOf(err error) hsmkpv1.Reason {
	for _, r := range reasons {
		if errors.Is(err, r.of) {
			return r.as
		}
	}
	return hsmkpv1.Reason_REASON_DIRECTORY
}

// published converts a publication to the API's message. Why a directory did not accept a key
// package is in the log alone.
func (s *Server) published(name string, p operator.Publication) *hsmkpv1.PublishResponse {
	out := &hsmkpv1.PublishResponse{Directory: p.Directory}
	for _, k := range p.Sent {
		if k.Err == nil {
			out.Published = append(out.Published, k.Ref)
			continue
		}
		if len(out.Pending) == 0 {
			s.Log.Warn("publish", "identity", name, "directory", p.Directory, "error", k.Err)
		}
		out.Pending = append(out.Pending, &hsmkpv1.PendingKeyPackage{Ref: k.Ref, Reason: reasonOf(k.Err)})
	}
	return out
}
