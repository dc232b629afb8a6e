package operator

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Find returns the record of the one key package whose ref begins with the hexadecimal digits in
// prefix, four or more. The error is inventory.ErrRef, inventory.ErrAmbiguousRef or
// store.ErrNotFound.
func (o *Operator) Find(ctx context.Context, prefix string) (store.KeyPackage, error) {
	return o.records.Find(ctx, prefix)
}

// Resolve returns the refs that prefixes are of, each once, or all faults of the prefixes.
func (o *Operator) Resolve(ctx context.Context, prefixes []string) ([][]byte, error) {
	var refs [][]byte
	var faults []error
	seen := make(map[string]bool)
	for _, prefix := range prefixes {
		ref, err := o.records.Resolve(ctx, prefix)
		switch {
		case err != nil:
			faults = append(faults, err)
		case !seen[string(ref)]:
			seen[string(ref)] = true
			refs = append(refs, ref)
		}
	}
	return refs, errors.Join(faults...)
}

// KeyPackage returns the record with a ref. The error is store.ErrNotFound if there is none.
func (o *Operator) KeyPackage(ctx context.Context, ref []byte) (store.KeyPackage, error) {
	return o.store.KeyPackage(ctx, ref)
}

// KeyPackages returns the records that fit, the oldest first. The identity that f names, if any,
// must be there.
func (o *Operator) KeyPackages(ctx context.Context, f store.Filter) (iter.Seq2[store.KeyPackage, error], error) {
	if err := o.mustBeThere(ctx, f.Identity); err != nil {
		return nil, err
	}
	return o.store.KeyPackages(ctx, f), nil
}

// Count returns how many key packages an identity has in each state, or all identities have if
// the name is empty.
func (o *Operator) Count(ctx context.Context, name string) (map[store.State]uint64, error) {
	if err := o.mustBeThere(ctx, name); err != nil {
		return nil, err
	}
	return o.store.Count(ctx, name)
}

// mustBeThere fails with ErrNoIdentity if no identity has the name. An empty name is accepted.
func (o *Operator) mustBeThere(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, err := o.record(ctx, name)
	return err
}

// ErrNoneLeft reports an identity that has too few key packages to hand out.
var ErrNoneLeft = errors.New("no more of its key packages are available")

// Claim hands out n key packages of an identity to a caller that adds its client to a group:
// available ones, valid now and not of last resort, the oldest first. Each is handed out once. If
// there are fewer, Claim hands out those, and the error is ErrNoneLeft.
func (o *Operator) Claim(ctx context.Context, name string, n int) ([]store.KeyPackage, error) {
	claimed, err := o.store.Claim(ctx, name, n, o.now())
	if err != nil || len(claimed) == n {
		return claimed, err
	}
	if len(claimed) == 0 {
		if err := o.mustBeThere(ctx, name); err != nil {
			return nil, err
		}
	}
	return claimed, fmt.Errorf("identity %q: %w: %d of %d were handed out", name, ErrNoneLeft, len(claimed), n)
}

// ExportRequest asks for the public parts of key packages.
type ExportRequest struct {
	Refs    [][]byte
	Pending bool   // all that an interrupted run left pending, instead of Refs
	Again   bool   // also those that were handed out before
	Folder  string // where they are written
}

// Exported is a key package that was written.
type Exported struct {
	Ref  keypackage.Ref
	File string
}

// ErrLeftPending warns of key packages that a failed export left pending: exporting what is
// pending writes them.
var ErrLeftPending = errors.New("left pending")

// Export writes key packages to a folder and records them as published, so that they are not
// handed out again. Until then they are pending.
func (o *Operator) Export(ctx context.Context, r ExportRequest) ([]Exported, error) {
	refs, from, err := o.toExport(ctx, &r)
	if err != nil {
		return nil, err
	}
	out, err := directory.OpenSpool(r.Folder)
	if err != nil {
		return nil, err
	}
	for _, ref := range refs { // a key package that cannot be written is not moved
		record, err := o.store.KeyPackage(ctx, ref)
		if err == nil {
			_, err = inventory.Public(&record)
		}
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
	}
	if err := o.store.Move(ctx, refs, from, store.Pending, o.now()); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	files, err := o.writePending(context.WithoutCancel(ctx), out, refs)
	if err != nil {
		o.warnf("%s %w", Plural(len(refs), "key package"), ErrLeftPending)
		return nil, err
	}
	exported := make([]Exported, len(refs))
	for i, ref := range refs {
		exported[i] = Exported{ref, files[i]}
	}
	return exported, nil
}

// toExport returns the key packages to write, and the states that they may be in.
func (o *Operator) toExport(ctx context.Context, r *ExportRequest) ([][]byte, []store.State, error) {
	switch {
	case r.Again && !r.Pending:
		return r.Refs, []store.State{store.Pending, store.Available, store.Published}, nil
	case !r.Pending:
		return r.Refs, []store.State{store.Available}, nil
	}
	var refs [][]byte
	for record, err := range o.store.KeyPackages(ctx, store.Filter{State: store.Pending}) {
		if err != nil {
			return nil, nil, fmt.Errorf("list key packages: %w", err)
		}
		if record.Directory == "" { // Publish sends the others to their directory
			refs = append(refs, record.Ref)
		}
	}
	return refs, []store.State{store.Pending}, nil
}

// writePending writes pending key packages and records them as published once they are on the
// disk. It returns the names of the files.
func (o *Operator) writePending(ctx context.Context, out *directory.Spool, refs [][]byte) ([]string, error) {
	records := make([]store.KeyPackage, len(refs))
	expired := 0
	for i, ref := range refs {
		var err error
		if records[i], err = o.store.KeyPackage(ctx, ref); err != nil {
			return nil, err
		}
		if records[i].NotAfter.Before(o.now()) {
			expired++
		}
	}
	files, err := writeAll(out, records)
	if err != nil {
		return nil, err
	}
	if expired > 0 {
		o.warnf("past their lifetime: %d of %s; every peer refuses those", expired, Plural(len(refs), "key package"))
	}
	return files, o.store.Move(ctx, refs, []store.State{store.Pending}, store.Published, o.now())
}

// Unwrapped are the HPKE private keys of a key package. Clear erases them.
type Unwrapped struct {
	Record              store.KeyPackage
	InitKey, Encryption []byte
}

// Clear erases the private keys.
func (u *Unwrapped) Clear() {
	clear(u.InitKey)
	clear(u.Encryption)
}

// ErrUnwrapRefused reports that the config does not let private keys out.
var ErrUnwrapRefused = errors.New("the config does not allow private keys to leave: unwrap.allow is false")

// Unwrap returns the private keys of a key package, if the config lets private keys out. It
// records who received them, or who was refused.
func (o *Operator) Unwrap(ctx context.Context, prefix string) (*Unwrapped, error) {
	record, err := o.Find(ctx, prefix)
	if !o.settings.Unwrap.Allow {
		if err != nil {
			return nil, ErrUnwrapRefused // even if there is no such key package
		}
		return nil, errors.Join(ErrUnwrapRefused, o.store.Record(ctx, audit.Entry{
			Time: o.now(), Act: audit.Refused, Identity: record.Identity, Ref: record.Ref, KeyID: record.WrappingKeyID, Detail: "unwrap: not allowed by the config",
		}))
	}
	if err != nil {
		return nil, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := inv.PrivateKeys(ctx, record.Ref, o.now())
	if err != nil {
		return nil, err
	}
	defer keys.Clear()
	return &Unwrapped{record, keys.Init.Bytes(), keys.Encryption.Bytes()}, nil
}
