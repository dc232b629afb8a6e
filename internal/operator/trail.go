package operator

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// TrailRequest says which entries of the audit trail to show. All conditions must hold.
type TrailRequest struct {
	// KeyPackage is the reference of the key package that they are about, or its first digits.
	// Empty: entries about all that there is.
	KeyPackage string
	// From is the lowest sequence number.
	From uint64
	// Limit is how many to show, 0 for all.
	Limit uint64
	// Acts are what was done. Empty: anything.
	Acts []audit.Act
	// Each receives the entries, the oldest first. Its error ends the act.
	Each func(TrailEntry) error
}

// TrailEntry is an entry of the trail with its hash.
type TrailEntry struct {
	audit.Entry
	Hash audit.Hash
}

// Trail shows entries of the audit trail. VerifyTrail checks that the trail is complete. Trail
// needs no token.
func (o *Operator) Trail(ctx context.Context, r TrailRequest) error {
	for _, act := range r.Acts {
		if !slices.Contains(audit.Acts, act) {
			return requestf("there is no act %q; the trail has %s", act, strings.ReplaceAll(strings.Trim(fmt.Sprint(audit.Acts), "[]"), " ", ", "))
		}
	}
	entries, of := o.store.Entries(ctx, r.From), keypackage.Ref(nil)
	if r.KeyPackage != "" {
		var err error
		if of, err = o.records.Resolve(ctx, r.KeyPackage); err != nil {
			return err
		}
		entries = o.store.EntriesOf(ctx, of)
	}
	shown := uint64(0)
	for stored, err := range entries {
		if err != nil {
			return fmt.Errorf("read the audit trail: %w", err)
		}
		entry, err := parseStored(stored, of)
		if err != nil {
			return fmt.Errorf("read the audit trail: %w", err)
		}
		if entry.Sequence < r.From || len(r.Acts) > 0 && !slices.Contains(r.Acts, entry.Act) {
			continue
		}
		if err := r.Each(entry); err != nil {
			return err
		}
		if shown++; shown == r.Limit {
			break
		}
	}
	return nil
}

// parseStored decodes an entry, which must be about the key package of, unless of is empty.
func parseStored(stored audit.Stored, of keypackage.Ref) (TrailEntry, error) {
	entry, err := audit.ParseEntry(stored.Bytes)
	if err != nil {
		return TrailEntry{}, fmt.Errorf("%w: %w", audit.ErrTampered, err)
	}
	if of != nil && !bytes.Equal(entry.Ref, of) {
		return TrailEntry{}, fmt.Errorf("entry %d: %w: it is about another key package", entry.Sequence, audit.ErrTampered)
	}
	return TrailEntry{entry, stored.Hash}, nil
}
