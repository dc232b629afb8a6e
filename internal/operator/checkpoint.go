package operator

import (
	"context"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
)

// SignedCheckpoint is a signed state of the audit trail.
type SignedCheckpoint struct {
	audit.Checkpoint
	Note []byte // C2SP signed note
}

// Checkpoint verifies the audit trail, signs its state with the audit key, and stores the result in
// the store. The first time, it makes the audit key; of several processes for which it is the
// first time, one does. It first completes a handover that a crash interrupted.
func (o *Operator) Checkpoint(ctx context.Context) (SignedCheckpoint, error) {
	key, record, err := o.auditKey(ctx)
	if err != nil {
		return SignedCheckpoint{}, err
	}
	result, announced, err := o.verifyOwn(ctx)
	if err != nil {
		return SignedCheckpoint{}, err
	}
	if _, err := o.handOver(ctx, result, announced); err != nil && !isLost(err) { // a lost key hands nothing over
		return SignedCheckpoint{}, err
	}
	return o.signTrail(ctx, result, key, &record)
}

// signTrail signs the state of a verified trail, and stores the checkpoint.
func (o *Operator) signTrail(ctx context.Context, result audit.Result, key *signer.Key, record *store.AuditKey) (c SignedCheckpoint, err error) {
	c.Checkpoint = audit.Checkpoint{Origin: record.Origin, Size: result.Entries, Root: result.Root}
	c.Note, err = audit.Sign(c.Checkpoint, key)
	if err == nil {
		err = o.store.AddCheckpoint(ctx, store.Checkpoint{Size: c.Size, Note: c.Note, CreatedAt: o.now()})
	}
	return c, err
}

// handOver signs the state of the trail with the audit key before the current one, unless that key
// has signed since the trail named the current one. It returns that checkpoint.
func (o *Operator) handOver(ctx context.Context, result audit.Result, announced []audit.Announcement) ([]byte, error) {
	keys, err := o.store.AuditKeys(ctx)
	if err != nil || len(keys) < 2 {
		return nil, err
	}
	before, now := keys[len(keys)-2], keys[len(keys)-1]
	kept, err := o.store.Checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range announced {
		for _, k := range kept {
			if a.VerifierKey != now.VerifierKey || k.Size <= a.Sequence {
				continue
			}
			if _, err := audit.Open(k.Note, before.VerifierKey); err == nil {
				return k.Note, nil
			}
		}
	}
	key, err := o.findAuditKey(ctx, &before)
	if err != nil {
		return nil, err
	}
	c, err := o.signTrail(ctx, result, key, &before)
	return c.Note, err
}
