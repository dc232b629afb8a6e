package server

import (
	"context"
	"fmt"
	"reflect"

	"github.com/hsm-kp/hsm-kp/identity"
	"github.com/hsm-kp/hsm-kp/store"
)

// opened is an identity whose key was found, and the record that it was found by.
type opened struct {
	record   store.Identity
	identity *identity.Identity
}

// identity returns an identity and its record. The token is asked once for as long as the
// record is the same: to check a stamp and to find a key are calls to it, and a signature
// should cost one.
func (s *Server) identity(ctx context.Context, name string) (*identity.Identity, *store.Identity, error) {
	record, err := s.signing(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	known, ok := s.identities[name]
	s.mu.Unlock()
	if ok && reflect.DeepEqual(known.record, *record) {
		return known.identity, record, nil
	}
	id, err := s.OpenIdentity(ctx, record)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identities[name] = opened{*record, id}
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
