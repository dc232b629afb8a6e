package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Publication is what became of key packages that were sent to a directory.
type Publication struct {
	Directory string // its name
	Sent      []Sent
}

// Sent is a key package that was sent to a directory.
type Sent struct {
	Ref []byte
	// Reason is what callers are told of one that the directory has not acknowledged, Err
	// what the log says; of one that it has, both are zero.
	Reason hsmkpv1.Reason
	Err    error
}

// ErrDirectory reports a directory that the config does not have, or that it has several and
// none was named.
var ErrDirectory = errors.New("no directory to publish in")

// Publish implements KeyPackageService.
func (s *Server) Publish(ctx context.Context, r *connect.Request[hsmkpv1.PublishRequest]) (*connect.Response[hsmkpv1.PublishResponse], error) {
	ctx, err := s.admit(ctx, Publish, r.Msg.GetIdentity(), 0)
	if err != nil {
		return nil, err
	}
	count := r.Msg.GetCount()
	if count > s.Limits.Batch {
		return nil, malformed(fmt.Sprintf("count is more than %d", s.Limits.Batch))
	}
	record, err := s.signing(ctx, r.Msg.GetIdentity())
	if err != nil {
		return nil, err
	}
	if count == 0 {
		if count, err = s.publishable(ctx, record.Name); err != nil {
			return nil, err
		}
	}
	if ctx, err = s.admit(ctx, Publish, record.Name, uint64(max(count, 1))); err != nil {
		return nil, err
	}
	sending, cancel := timeToAnswer(ctx)
	defer cancel()
	p, err := s.Config.Publish(sending, record, r.Msg.GetDirectory(), int(count))
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return connect.NewResponse(s.published(record.Name, p)), nil
}

// timeToAnswer returns a context that ends a little before ctx does, so that there is time
// to record what was done and to say it.
func timeToAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/10))
}

// publishable counts the key packages that can be published, up to what one request may.
func (s *Server) publishable(ctx context.Context, name string) (uint32, error) {
	stock, err := s.Inventory.Store.Stock(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("publish: %w", err)
	}
	n := uint64(0)
	for _, k := range stock {
		if !k.LastResort && (k.State == store.Available || k.State == store.Pending) {
			n += k.Count
		}
	}
	return uint32(min(n, uint64(s.Limits.Batch))), nil
}

// published is a publication as callers see it. Why a directory did not take something is in
// the log.
func (s *Server) published(name string, p Publication) *hsmkpv1.PublishResponse {
	out := &hsmkpv1.PublishResponse{Directory: p.Directory}
	for _, k := range p.Sent {
		if k.Err == nil {
			out.Published = append(out.Published, k.Ref)
			continue
		}
		if len(out.Pending) == 0 {
			s.Log.Warn("publish", "identity", name, "directory", p.Directory, "error", k.Err)
		}
		out.Pending = append(out.Pending, &hsmkpv1.PendingKeyPackage{Ref: k.Ref, Reason: k.Reason})
	}
	return out
}
