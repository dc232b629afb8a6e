package store

import (
	"context"
	"iter"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// Checkpoint is a signed note over the audit trail as it was.
type Checkpoint struct {
	Size      uint64 // how many entries it covers
	Note      []byte
	CreatedAt time.Time
}

// AuditKey is the key in the token that signs checkpoints.
type AuditKey struct {
	KeyID       []byte // CKA_ID
	Label       string // CKA_LABEL
	TokenSerial string
	Origin      string // of the checkpoints, and the name of the key in notes
	VerifierKey string // which an auditor pins
	CreatedAt   time.Time
}

// Trail remembers what was done.
type Trail interface {
	// Record adds entries of acts that change nothing in the store. It sets Sequence, and Actor
	// if that is empty.
	Record(ctx context.Context, entries ...audit.Entry) error
	// Entries yields the trail from the entry with that sequence number on, in constant memory
	// and without holding writers back. Ref is that of the key package for which EntriesOf yields
	// the entry. If somebody has tampered with the store, it may differ from the entry's own.
	Entries(ctx context.Context, from uint64) iter.Seq2[audit.Stored, error]
	// EntriesOf yields the entries of one key package, oldest first.
	EntriesOf(ctx context.Context, ref []byte) iter.Seq2[audit.Stored, error]
	// AddCheckpoint adds a checkpoint. If there is one of the same size, it does nothing.
	AddCheckpoint(ctx context.Context, c Checkpoint) error
	// Checkpoints returns all, the oldest first.
	Checkpoints(ctx context.Context) ([]Checkpoint, error)
	// AddAuditKey adds a key for checkpoints, which is the current one from then on, and settles
	// the intent to make it. The trail has its verifier key. The error is ErrExists, or ErrState
	// if the intent says that it succeeds another key, and that is no longer the current one.
	AddAuditKey(ctx context.Context, k AuditKey) error
	// AuditKeys returns all, the oldest first: the last one signs.
	AuditKeys(ctx context.Context) ([]AuditKey, error)
}
