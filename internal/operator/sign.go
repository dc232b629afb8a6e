package operator

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// opened is an identity whose key was found, and its record at that time.
type opened struct {
	record   store.Identity
	identity *identity.Identity
	read     time.Time // when the record was last read from the store
}

// recordFor is how long a record is used before it is read again, so that not every signature reads
// the store. After this time, which is as long as a signature of a network HSM may take, it is
// noticed that another process has retired the identity.
const recordFor = 50 * time.Millisecond

// Signer returns an identity that signs, and its record. It calls the token only if the record has
// changed: checking a stamp and finding a key are calls to the token, and a signature should cost
// one call.
func (o *Operator) Signer(ctx context.Context, name string) (*identity.Identity, *store.Identity, error) {
	if known, ok := o.known(name); ok && time.Since(known.read) < recordFor {
		return known.identity, &known.record, nil
	}
	record, err := o.record(ctx, name)
	if err == nil {
		err = requireSigning(&record)
	}
	if err != nil {
		return nil, nil, err
	}
	id, err := o.signerOf(ctx, &record)
	return id, &record, err
}

func (o *Operator) known(name string) (opened, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.signers[name]
	return known, ok
}

// signerOf opens the identity of a record that was just read, unless it was opened before by the
// same record.
func (o *Operator) signerOf(ctx context.Context, record *store.Identity) (*identity.Identity, error) {
	now := time.Now()
	known, ok := o.known(record.Name)
	if !ok || !reflect.DeepEqual(known.record, *record) {
		id, err := o.OpenIdentity(ctx, record)
		if err != nil {
			return nil, err
		}
		known = opened{record: *record, identity: id}
	}
	known.read = now
	o.mu.Lock()
	defer o.mu.Unlock()
	o.signers[record.Name] = known
	return known.identity, nil
}

// SignRequest asks for a signature over a structure of MLS.
type SignRequest struct {
	Identity string
	Label    string // as SignWithLabel has it (RFC 9420, Section 5.1.2)
	Content  []byte
	// Check refuses content that the identity must not sign; it is required.
	Check func(*identity.Identity, *store.Identity) error
}

// SignWithLabel signs in the token, verifies in software what the token made, and records it.
func (o *Operator) SignWithLabel(ctx context.Context, r SignRequest) ([]byte, error) {
	id, record, err := o.Signer(ctx, r.Identity)
	if err != nil {
		return nil, err
	}
	if err := r.Check(id, record); err != nil {
		return nil, err
	}
	signature, err := id.Suite.Signature.SignWithLabel(o.rand, id.Signer, r.Label, r.Content)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	public, err := id.Suite.Signature.ParsePublicKey(record.SignatureKey)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if err := public.VerifyWithLabel(r.Label, r.Content, signature); err != nil {
		return nil, fmt.Errorf("%w: %w", keypackage.ErrSignerFault, err)
	}
	if err := o.store.Record(ctx, audit.Entry{
		Time: o.now(), Act: audit.Signed, Identity: record.Name, KeyID: record.KeyID, Detail: r.Label,
	}); err != nil {
		return nil, fmt.Errorf("record signature: %w", err)
	}
	return signature, nil
}

// RecordRefusals records acts that were refused to a caller.
func (o *Operator) RecordRefusals(ctx context.Context, e ...audit.Entry) error {
	return o.store.Record(ctx, e...)
}
