package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// states maps the states of the API to those of the store.
var states = map[hsmkpv1.State]store.State{
	hsmkpv1.State_STATE_UNSPECIFIED: "",
	hsmkpv1.State_STATE_PENDING:     store.Pending,
	hsmkpv1.State_STATE_AVAILABLE:   store.Available,
	hsmkpv1.State_STATE_PUBLISHED:   store.Published,
	hsmkpv1.State_STATE_CLAIMED:     store.Claimed,
	hsmkpv1.State_STATE_RESERVED:    store.Reserved,
	hsmkpv1.State_STATE_CONSUMED:    store.Consumed,
	hsmkpv1.State_STATE_RETIRED:     store.Retired,
	hsmkpv1.State_STATE_EXPIRED:     store.Expired,
	hsmkpv1.State_STATE_ERASED:      store.Erased,
}

func stateOf(s store.State) hsmkpv1.State {
	for of, is := range states {
		if is == s {
			return of
		}
	}
	return hsmkpv1.State_STATE_UNSPECIFIED
}

const (
	// maxPage is the largest number of key packages in an answer, defaultPage the number if the
	// request has none.
	maxPage, defaultPage = 1000, 100
)

// Generate implements KeyPackageService.
func (s *Server) Generate(ctx context.Context, r *connect.Request[hsmkpv1.GenerateRequest]) (*connect.Response[hsmkpv1.GenerateResponse], error) {
	count := max(r.Msg.GetCount(), 1)
	ctx, err := s.admit(ctx, act.Generate, r.Msg.GetIdentity(), uint64(count))
	if err != nil {
		return nil, err
	}
	if count > s.Limits.Batch {
		return nil, malformed(fmt.Sprintf("count is more than %d", s.Limits.Batch))
	}
	out := new(hsmkpv1.GenerateResponse)
	_, err = s.Operator.Generate(ctx, operator.GenerateRequest{
		Identity: r.Msg.GetIdentity(), Count: uint64(count), LastResort: r.Msg.GetLastResort(),
		Each: func(batch []operator.Written) error {
			for i := range batch {
				k, err := messageOf(&batch[i].KeyPackage, true)
				if err != nil {
					return err
				}
				out.KeyPackages = append(out.KeyPackages, k)
			}
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	return connect.NewResponse(out), nil
}

// List implements KeyPackageService.
func (s *Server) List(ctx context.Context, r *connect.Request[hsmkpv1.ListRequest]) (*connect.Response[hsmkpv1.ListResponse], error) {
	ctx, err := s.admit(ctx, act.List, r.Msg.GetIdentity(), 1)
	if err != nil {
		return nil, err
	}
	if r.Msg.GetIdentity() == "" { // the operator would take that as all identities
		return nil, errNotFound
	}
	state, known := states[r.Msg.GetState()]
	size := int(r.Msg.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	if !known || size > maxPage {
		return nil, malformed(fmt.Sprintf("state is unknown, or page_size more than %d", maxPage))
	}
	after, err := s.after(ctx, r.Msg)
	if err != nil {
		return nil, err
	}
	page, err := s.page(ctx, store.Filter{Identity: r.Msg.GetIdentity(), State: state, After: after}, size, r.Msg.GetWithMessage())
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	return connect.NewResponse(page), nil
}

// after returns the ref of the last key package of the previous page, which is the page token. The
// ref must be the identity's, so that a caller learns nothing of others.
func (s *Server) after(ctx context.Context, r *hsmkpv1.ListRequest) ([]byte, error) {
	if r.GetPageToken() == "" {
		return nil, nil
	}
	unknown := malformed("page_token is not from this list")
	ref, err := hex.DecodeString(r.GetPageToken())
	if err != nil {
		return nil, unknown
	}
	record, err := s.Operator.KeyPackage(ctx, ref)
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && record.Identity != r.GetIdentity():
		return nil, unknown
	case err != nil:
		return nil, fmt.Errorf("list: %w", err)
	}
	return ref, nil
}

// page returns at most size key packages that match f.
func (s *Server) page(ctx context.Context, f store.Filter, size int, whole bool) (*hsmkpv1.ListResponse, error) {
	out := new(hsmkpv1.ListResponse)
	records, err := s.Operator.KeyPackages(ctx, f)
	if err != nil {
		return nil, err
	}
	for record, err := range records {
		if err != nil {
			return nil, err
		}
		if len(out.GetKeyPackages()) == size {
			out.NextPageToken = hex.EncodeToString(out.GetKeyPackages()[size-1].GetRef())
			return out, nil
		}
		k, err := messageOf(&record, whole)
		if err != nil {
			return nil, err
		}
		out.KeyPackages = append(out.KeyPackages, k)
	}
	return out, nil
}

// Get implements KeyPackageService.
func (s *Server) Get(ctx context.Context, r *connect.Request[hsmkpv1.GetRequest]) (*connect.Response[hsmkpv1.GetResponse], error) {
	_, record, err := s.admitRef(ctx, act.Get, r.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	k, err := messageOf(record, true)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&hsmkpv1.GetResponse{KeyPackage: k}), nil
}

// admitRef admits an operation on the identity of a key package. A caller that is not granted all
// identities does not learn whether the key package exists.
func (s *Server) admitRef(ctx context.Context, op act.Act, ref []byte) (context.Context, *store.KeyPackage, error) {
	record, err := s.Operator.KeyPackage(ctx, ref)
	ctx, refused := s.admit(ctx, op, record.Identity, 1)
	if refused != nil {
		return nil, nil, refused
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load key package: %w", err)
	}
	return ctx, &record, nil
}

// Claim implements KeyPackageService.
func (s *Server) Claim(ctx context.Context, r *connect.Request[hsmkpv1.ClaimRequest]) (*connect.Response[hsmkpv1.ClaimResponse], error) {
	count := max(r.Msg.GetCount(), 1)
	ctx, err := s.admit(ctx, act.Claim, r.Msg.GetIdentity(), uint64(count))
	if err != nil {
		return nil, err
	}
	if count > maxPage {
		return nil, malformed(fmt.Sprintf("count is more than %d", maxPage))
	}
	claimed, err := s.Operator.Claim(ctx, r.Msg.GetIdentity(), int(count))
	switch {
	case errors.Is(err, operator.ErrNoneLeft) && len(claimed) == 0:
		return nil, errNoneLeft
	case err != nil && !errors.Is(err, operator.ErrNoneLeft): // fewer than asked for is an answer
		return nil, fmt.Errorf("claim: %w", err)
	}
	out := new(hsmkpv1.ClaimResponse)
	for i := range claimed {
		k, err := messageOf(&claimed[i], true)
		if err != nil {
			s.Log.Error("claimed key package", "error", err) // the others were claimed all the same
			continue
		}
		out.KeyPackages = append(out.KeyPackages, k)
	}
	if len(out.GetKeyPackages()) == 0 {
		return nil, inventory.ErrMixedUp
	}
	return connect.NewResponse(out), nil
}

// messageOf converts a record to the API's message. If whole is set, it recomputes the ref from the
// bytes.
func messageOf(record *store.KeyPackage, whole bool) (*hsmkpv1.KeyPackage, error) {
	out := &hsmkpv1.KeyPackage{
		Ref: slices.Clone(record.Ref), Identity: record.Identity, CipherSuite: uint32(record.Suite), State: stateOf(record.State),
		LastResort: record.LastResort, IdentityVersion: record.Version,
		NotBefore: timestamppb.New(record.NotBefore), NotAfter: timestamppb.New(record.NotAfter), ReservedUntil: optionalTime(record.ReservedUntil),
	}
	if !whole {
		return out, nil
	}
	kp, err := inventory.Public(record)
	if err != nil {
		return nil, err
	}
	out.MlsMessage = kp.Message()
	return out, nil
}

func optionalTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
