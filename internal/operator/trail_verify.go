package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// ErrForeignCheckpoint reports a checkpoint that no known key signed.
var ErrForeignCheckpoint = errors.New("no trusted key signed it")

// UnvouchedKeyError reports a checkpoint that was signed by a key which the trail names, but
// which no checkpoint of a trusted key covers. It wraps ErrForeignCheckpoint.
type UnvouchedKeyError struct {
	Checkpoint string // its name
	Entry      uint64 // of the trail, which names the key
}

// Error implements error.
func (e *UnvouchedKeyError) Error() string {
	return fmt.Sprintf("%s: %v: entry %d of the trail names the key that did, and no checkpoint of a trusted key covers that entry",
		e.Checkpoint, ErrForeignCheckpoint, e.Entry)
}

// Unwrap returns ErrForeignCheckpoint.
func (e *UnvouchedKeyError) Unwrap() error { return ErrForeignCheckpoint }

// VerifyTrailRequest says what to hold the audit trail against, beside the checkpoints that the
// store has.
type VerifyTrailRequest struct {
	// Keys are the verifier keys to trust. Empty: those that the store has.
	Keys []string
	// Notes are checkpoints that were kept elsewhere.
	Notes []CheckpointNote
}

// CheckpointNote is a signed checkpoint.
type CheckpointNote struct {
	Name string // for errors, such as a file's
	Note []byte
}

// VerifyTrail computes the audit trail's hashes again and compares them with checkpoints. The
// error wraps audit.ErrTampered if the trail was changed; the result then is what held up to the
// fault. The result is nil if a checkpoint is not trusted. It needs no token.
func (o *Operator) VerifyTrail(ctx context.Context, r VerifyTrailRequest) (*audit.Result, error) {
	v, err := o.verification(ctx, r)
	if err != nil {
		return nil, err
	}
	var seen []audit.Announcement
	result, err := audit.Verify(audit.Announced(o.store.Entries(ctx, 0), &seen), v.checkpoints)
	if err == nil && v.announced != nil && !slices.Equal(seen[:min(len(v.announced), len(seen))], v.announced) {
		err = fmt.Errorf("%w while it was read", audit.ErrTampered)
	}
	return &result, err
}

// verifyOwn verifies the trail against the store's own checkpoints and keys, before it is
// signed, and returns the keys that it names.
func (o *Operator) verifyOwn(ctx context.Context) (result audit.Result, announced []audit.Announcement, err error) {
	v, err := o.verification(ctx, VerifyTrailRequest{})
	if err != nil {
		return result, nil, err
	}
	result, err = audit.Verify(audit.Announced(o.store.Entries(ctx, 0), &announced), v.checkpoints)
	return result, announced, err
}

// verification is what a trail is held against.
type verification struct {
	keys        []string
	notes       []CheckpointNote
	checkpoints []audit.Checkpoint   // of the notes
	announced   []audit.Announcement // what the trail named, if the keys did not suffice
}

func (o *Operator) verification(ctx context.Context, r VerifyTrailRequest) (v verification, err error) {
	if v.keys, err = o.verifierKeys(ctx, r.Keys); err != nil {
		return v, err
	}
	kept, err := o.store.Checkpoints(ctx)
	if err != nil {
		return v, err
	}
	for _, k := range kept {
		v.notes = append(v.notes, CheckpointNote{fmt.Sprintf("checkpoint of %s in the store", PluralOf(k.Size, "entry", "entries")), k.Note})
	}
	v.notes = append(v.notes, r.Notes...)
	return v, v.open(ctx, o)
}

// verifierKeys returns the keys to trust: those of the request, or the store's.
func (o *Operator) verifierKeys(ctx context.Context, keys []string) ([]string, error) {
	for _, key := range keys {
		if err := audit.CheckVerifierKey(key); err != nil {
			return nil, requestf("verifier key %q: %v", key, err)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	known, err := o.store.AuditKeys(ctx)
	for _, k := range known {
		keys = append(keys, k.VerifierKey)
	}
	return keys, err
}

// open verifies the signatures of the notes, with trusted keys or, if these have not
// signed all, with those that the trail names.
func (v *verification) open(ctx context.Context, o *Operator) error {
	var notes [][]byte
	for _, n := range v.notes {
		notes = append(notes, n.Note)
	}
	opened := audit.OpenAll(notes, v.keys, nil)
	if slices.Contains(opened, nil) {
		var err error
		if v.announced, err = audit.Announcements(o.store.Entries(ctx, 0)); err != nil {
			return err
		}
		opened = audit.OpenAll(notes, v.keys, v.announced)
	}
	for i, checkpoint := range opened {
		if checkpoint == nil {
			return v.foreign(&v.notes[i])
		}
		v.checkpoints = append(v.checkpoints, *checkpoint)
	}
	return nil
}

// foreign returns an error that says why a checkpoint is not trusted.
func (v *verification) foreign(n *CheckpointNote) error {
	for i, a := range v.announced {
		if _, err := audit.Open(n.Note, a.VerifierKey); err == nil && i > 0 { // the first key replaces no other
			return &UnvouchedKeyError{n.Name, a.Sequence}
		}
	}
	var fault error
	for _, key := range v.keys {
		_, fault = audit.Open(n.Note, key)
	}
	if fault == nil {
		return fmt.Errorf("%s: %w", n.Name, ErrForeignCheckpoint)
	}
	return fmt.Errorf("%s: %w: %w", n.Name, ErrForeignCheckpoint, fault)
}
