package store

import (
	"context"
	"time"
)

// VersionState is the state of a version of an identity.
type VersionState string

// The states of a version.
const (
	Next    VersionState = "next"    // made, does not sign yet
	Current VersionState = "current" // the one that signs
	Old     VersionState = "old"     // has signed before
)

// Identity is a signer of key packages, in one of its versions. Each rotation of its signature key
// makes another version.
type Identity struct {
	Name         string
	Version      uint64 // 1 is the first
	State        VersionState
	Suite        uint16
	Credential   []byte // encoded Credential, RFC 9420, Section 5.3
	SignatureKey []byte // public key, RFC 9420, Section 5.1.1
	KeyID        []byte // CKA_ID
	KeyLabel     string // CKA_LABEL
	TokenSerial  string
	WeakKey      bool   // the operator allowed a key that could leave its token
	Custody      string // which its key packages are to have; empty: any
	Stamp        []byte // authenticates all of it but State, Custody, KeyLabel and the times
	StampKey     []byte // CKA_ID of the wrapping key that made the stamp
	CreatedAt    time.Time
	RetiredAt    time.Time // zero: not retired
	DestroyedAt  time.Time // of the signature key; zero: not destroyed
}

// ForDevice reports whether the private keys of its key packages are for a device: without that
// device, key packages would be of no use.
func (id *Identity) ForDevice() bool { return id.Custody == "device" || id.Custody == "release" }

// Identities remembers who signs.
type Identities interface {
	// AddIdentity adds an identity in its first version, and settles the intent to make its key.
	// The error is ErrExists if the name is taken, or ErrWrappingKey if the key of its stamp is
	// destroyed.
	AddIdentity(ctx context.Context, id Identity) error
	// Identity returns the current version of the identity called name, or ErrNotFound.
	Identity(ctx context.Context, name string) (Identity, error)
	// Identities returns the current versions of all identities, by name.
	Identities(ctx context.Context) ([]Identity, error)
	// Versions returns all versions of the identity called name, the oldest first.
	Versions(ctx context.Context, name string) ([]Identity, error)
	// ChangeIdentity replaces credential and stamp of a version of an identity by those of id,
	// provided that its stamp is still was: of two callers that change the same record, one
	// succeeds. The error is ErrNotFound, ErrState if the record was changed meanwhile, or
	// ErrWrappingKey.
	ChangeIdentity(ctx context.Context, id Identity, was []byte, at time.Time) error
	// ProposeIdentity adds the next version of an identity, whose number is one more than that
	// of the last one, and settles the intent to make its key. The error is ErrNotFound,
	// ErrState if that is not its number, ErrExists if there is a next version already, or
	// ErrWrappingKey.
	ProposeIdentity(ctx context.Context, id Identity) error
	// SwitchIdentity makes the next version the current one, and retires the key packages of the
	// versions before it, whose private keys are erased after until. It returns the backlog of
	// these. The error is ErrNotFound, or ErrState if version is not the next one.
	SwitchIdentity(ctx context.Context, name string, version uint64, until, at time.Time) (Backlog, error)
	// RetireIdentity retires an identity with all its key packages, and returns the backlog of
	// these. If the backlog of an earlier call is not finished and nothing was added since, it
	// returns that one, with its own until. The error is ErrNotFound.
	RetireIdentity(ctx context.Context, name string, until, at time.Time) (Backlog, error)
	// CondemnSignatureKey records as an intent that the signature key of a version is about to be
	// destroyed in the token. A next version is given up with its key. The error is ErrNotFound,
	// ErrState if the version signs, or ErrInUse if another version or identity signs with the
	// key, or, unless force is set, if key packages that it signed are open.
	CondemnSignatureKey(ctx context.Context, name string, version uint64, force bool, i Intent) error
}
