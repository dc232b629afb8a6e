package server

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// opened is an identity whose key was found, the record that it was found by, and when that was
// read last.
type opened struct {
	record   store.Identity
	identity *identity.Identity
	read     time.Time
}

// recordFor is how long a record counts as read. Who signs often would otherwise ask the store as
// often; that an identity was retired elsewhere is noticed after this time, which a signature of a
// network HSM's may take.
const recordFor = 50 * time.Millisecond

// identity returns an identity and its record. The token is asked once for as long as the
// record is the same: to check a stamp and to find a key are calls to it, and a signature
// should cost one.
func (s *Server) identity(ctx context.Context, name string) (*identity.Identity, *store.Identity, error) {
	s.mu.Lock()
	known, ok := s.identities[name]
	s.mu.Unlock()
	if ok && time.Since(known.read) < recordFor {
		return known.identity, &known.record, nil
	}
	now := time.Now()
	record, err := s.signing(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	id := known.identity
	if !ok || !reflect.DeepEqual(known.record, *record) {
		if id, err = s.OpenIdentity(ctx, record); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identities[name] = opened{*record, id, now}
	return id, record, nil
}

// signing returns the record of an identity that is not retired.
func (s *Server) signing(ctx context.Context, name string) (*store.Identity, error) {
	record, err := s.Inventory.Store.Identity(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if !record.RetiredAt.IsZero() {
		return nil, fmt.Errorf("the identity is retired: %w", store.ErrState)
	}
	return &record, nil
}
