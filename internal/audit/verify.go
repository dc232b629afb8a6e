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

// ErrTampered reports a trail that is not the one that was written: an entry was
// changed, removed, added or moved, or the end was cut off.
var ErrTampered = errors.New("audit trail was changed outside of hsm-kp")

// ClockSlack is how much earlier than the entry before one may be. An entry has the time
// at which its act began, and processes that write to one trail wait for each other.
const ClockSlack = time.Minute

// Stored is an entry as a store holds it.
type Stored struct {
	Bytes []byte // of Entry.Bytes
	Hash  Hash   // of Chain
	// Ref is the KeyPackageRef that the store finds the entry under, which no hash is over;
	// empty where it finds it under none, nil where it does not say.
	Ref []byte
}

// Result is what Verify has seen. After an error it is what held up to there:
// Entries is the sequence of the entry at fault, where one is.
type Result struct {
	Entries     uint64 // how many there are
	Head        Hash   // the Hash of the last; zero where there is none
	Root        Hash   // of the Tree over all
	Checkpoints int    // how many of them hold
	Unattested  uint64 // entries after the largest checkpoint that holds: nobody vouches for them
	Backwards   uint64 // entries that are more than ClockSlack earlier than the one before: a clock was set back
}

// Verify reads a trail from its beginning and reports the first thing that is
// wrong. The checkpoints, in any order, are those that Open returned; it does
// not matter who signed them. Each has to have the root that the entries had
// when there were as many.
//
// The error wraps ErrTampered and says which entry or checkpoint, and how: the
// entry cannot be parsed, its sequence has a gap or goes back, its hash does
// not fit, or the store finds it under another key package than it is about; the
// checkpoint has another root, or more entries than there are. An
// error of entries ends it too, and is wrapped as it is.
//
// Verify keeps none of the entries; their bytes may be overwritten as soon as
// the next one is asked for. Without a checkpoint it finds no forger who has
// made all hashes anew, and none who cut off the end.
func Verify(entries iter.Seq2[Stored, error], checkpoints []Checkpoint) (Result, error) {
	v := newVerification(checkpoints)
	err := v.run(entries)
	return v.end(), err
}

// verification is a Verify under way.
type verification struct {
	result   Result
	tree     Tree
	last     time.Time    // of the last entry
	attested uint64       // size of the largest checkpoint that held
	pending  []Checkpoint // not reached yet, by size
}

func newVerification(checkpoints []Checkpoint) *verification {
	pending := slices.Clone(checkpoints)
	slices.SortStableFunc(pending, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	return &verification{pending: pending}
}

func (v *verification) run(entries iter.Seq2[Stored, error]) error {
	if err := v.compare(); err != nil { // there may be checkpoints of nothing
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

// add takes the next entry, where it is the next entry.
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

// CheckRef reports whether the store finds an entry, which is e, under the key package that
// it is about. The error wraps ErrTampered.
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

// compare checks the checkpoints of the size that the tree has now.
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
