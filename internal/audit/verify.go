package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// ErrTampered reports a trail that differs from what was written: an entry was changed, removed,
// added or moved, or the end was cut off.
var ErrTampered = errors.New("audit trail was changed outside of hsm-kp")

// ClockSlack is how much earlier an entry may be than the one before. An entry has the time at
// which its act began, and processes that write to one trail wait for each other.
const ClockSlack = time.Minute

// Stored is an entry as a store holds it.
type Stored struct {
	Bytes []byte // of Entry.Bytes
	Hash  Hash   // of Chain
	// Ref is the KeyPackageRef under which the store finds the entry; no hash covers it. It is
	// empty if there is none, and nil if the store does not say.
	Ref []byte
}

// Result is what Verify has seen. After an error, it covers what was valid up to there: Entries is
// then the sequence of the faulty entry, if there is one.
type Result struct {
	Entries     uint64 // number of entries
	Head        Hash   // the Hash of the last; zero if there is none
	Root        Hash   // of the Tree over all entries
	Checkpoints int    // number of checkpoints that hold
	Unattested  uint64 // entries after the largest checkpoint that holds, which nothing attests
	Backwards   uint64 // entries that are more than ClockSlack earlier than the one before: a clock was set back
}

// Verify reads a trail from its beginning and reports the first fault. The checkpoints, in any
// order, are those that Open returned; it does not matter who signed them. Each must have the root
// that the entries had when there were as many.
//
// The error wraps ErrTampered and says which entry or checkpoint is faulty, and how. An entry is
// faulty if it cannot be parsed, its sequence has a gap or goes back, its hash does not fit, or the
// store finds it under another key package than it is about. A checkpoint is faulty if it has
// another root, or more entries than there are. If entries yields an error, Verify ends and wraps
// that error.
//
// Verify retains no entry; its bytes may be overwritten when the next one is requested. Without a
// checkpoint, it cannot detect a forger who has recomputed all hashes, or one who cut off the end.
func Verify(entries iter.Seq2[Stored, error], checkpoints []Checkpoint) (Result, error) {
	v := newVerification(checkpoints)
	err := v.run(entries)
	return v.end(), err
}

// verification is the state of a Verify.
type verification struct {
	result   Result
	tree     Tree
	last     time.Time    // time of the last entry
	attested uint64       // size of the largest checkpoint that held
	pending  []Checkpoint // not reached yet, ordered by size
}

func newVerification(checkpoints []Checkpoint) *verification {
	pending := slices.Clone(checkpoints)
	slices.SortStableFunc(pending, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	return &verification{pending: pending}
}

func (v *verification) run(entries iter.Seq2[Stored, error]) error {
	if err := v.compare(); err != nil { // there may be checkpoints of size 0
		return err
	}
	for stored, err := range entries {
		if err != nil {
			return fmt.Errorf("read entry %d: %w", v.tree.Size(), err)
		}
		if err := v.add(stored); err != nil {
			return fmt.Errorf("verify entry %d: %w", v.tree.Size(), err)
		}
		if err := v.compare(); err != nil {
			return err
		}
	}
	if len(v.pending) > 0 {
		return fmt.Errorf("verify checkpoint of size %d: %w: there are %d entries; the end was cut off",
			v.pending[0].Size, ErrTampered, v.tree.Size())
	}
	return nil
}

// add appends stored. It fails if stored does not follow the last entry.
func (v *verification) add(stored Stored) error {
	e, err := ParseEntry(stored.Bytes)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err := checkSequence(e.Sequence, v.tree.Size()); err != nil {
		return err
	}
	if stored.Hash != Chain(v.result.Head, stored.Bytes) {
		return fmt.Errorf("%w: its hash does not fit it and the entry before", ErrTampered)
	}
	if err := stored.CheckRef(&e); err != nil {
		return err
	}
	if e.Time.Before(v.last.Add(-ClockSlack)) {
		v.result.Backwards++
	}
	v.last = e.Time
	v.result.Head = stored.Hash
	v.tree.Append(stored.Bytes)
	return nil
}

// CheckRef fails unless the store finds the entry, which is e, under the key package that it is
// about. The error wraps ErrTampered.
func (s *Stored) CheckRef(e *Entry) error {
	switch {
	case s.Ref == nil || bytes.Equal(s.Ref, e.Ref):
		return nil
	case len(s.Ref) == 0:
		return fmt.Errorf("%w: it is about key package %x, and not found under it", ErrTampered, e.Ref)
	case len(e.Ref) == 0:
		return fmt.Errorf("%w: it is about no key package, and found under %x", ErrTampered, s.Ref)
	}
	return fmt.Errorf("%w: it is about key package %x, and found under %x", ErrTampered, e.Ref, s.Ref)
}

func checkSequence(got, want uint64) error {
	switch {
	case got > want:
		return fmt.Errorf("%w: its sequence is %d; entries are missing", ErrTampered, got)
	case got < want:
		return fmt.Errorf("%w: its sequence is %d, which was there before", ErrTampered, got)
	default:
		return nil
	}
}

// compare checks the checkpoints of the tree's current size.
func (v *verification) compare() error {
	for len(v.pending) > 0 && v.pending[0].Size == v.tree.Size() {
		c := v.pending[0]
		if root := v.tree.Root(); c.Root != root {
			return fmt.Errorf("verify checkpoint of size %d: %w: its root is %v, and that of the entries %v",
				c.Size, ErrTampered, c.Root, root)
		}
		v.pending = v.pending[1:]
		v.attested = c.Size
		v.result.Checkpoints++
	}
	return nil
}

func (v *verification) end() Result {
	v.result.Entries = v.tree.Size()
	v.result.Root = v.tree.Root()
	v.result.Unattested = v.tree.Size() - v.attested
	return v.result
}
