package audit_test

import (
	"bytes"
	"errors"
	"iter"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// wantTampered wants Verify to report tampering, with the given words.
func wantTampered(t *testing.T, all trail, checkpoints []audit.Checkpoint, words string) {
	t.Helper()
	_, err := audit.Verify(all.all(), checkpoints)
	if !errors.Is(err, audit.ErrTampered) {
		t.Fatalf("Verify() err = %v, want %v", err, audit.ErrTampered)
	}
	if !strings.Contains(err.Error(), words) {
		t.Errorf("Verify() err = %v, want one that says %q", err, words)
	}
}

func TestAnIntactTrailVerifies(t *testing.T) {
	all := newTrail(13, nil)
	for name, test := range map[string]struct {
		sizes      []int
		unattested uint64
	}{
		"no checkpoint":       {nil, 13},
		"of nothing":          {[]int{0}, 13},
		"of some":             {[]int{8}, 5},
		"of all":              {[]int{13}, 0},
		"many, in any order":  {[]int{8, 1, 11, 0, 5}, 2},
		"the same once again": {[]int{12, 3, 12}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var checkpoints []audit.Checkpoint
			for _, n := range test.sizes {
				checkpoints = append(checkpoints, all.checkpoint(n))
			}
			given := slices.Clone(checkpoints)
			got, err := audit.Verify(all.all(), checkpoints)
			if err != nil {
				t.Fatalf("Verify() err = %v, want nil", err)
			}
			wantEqual(t, "Verify()", got, audit.Result{
				Entries:     13,
				Head:        all[12].Hash,
				Root:        all.checkpoint(13).Root,
				Checkpoints: len(test.sizes),
				Unattested:  test.unattested,
			})
			wantEqual(t, "checkpoints after Verify()", checkpoints, given)
		})
	}
}

func TestAnEmptyTrailVerifies(t *testing.T) {
	var all trail
	got, err := audit.Verify(all.all(), []audit.Checkpoint{all.checkpoint(0)})
	if err != nil {
		t.Fatalf("Verify() err = %v, want nil", err)
	}
	wantEqual(t, "Verify()", got, audit.Result{Root: all.checkpoint(0).Root, Checkpoints: 1})
}

func TestEachFlippedBitIsFound(t *testing.T) {
	all := newTrail(5, nil)
	for i := range all {
		original := all[i]
		for bit := range 8 * len(original.Bytes) {
			all[i].Bytes = bytes.Clone(original.Bytes)
			all[i].Bytes[bit/8] ^= 1 << (bit % 8)
			wantTampered(t, all, nil, "entry "+string(rune('0'+i)))
		}
		all[i] = original
		for bit := range 8 * len(original.Hash) {
			all[i].Hash = original.Hash
			all[i].Hash[bit/8] ^= 1 << (bit % 8)
			wantTampered(t, all, nil, "entry "+string(rune('0'+i))+": ")
		}
		all[i] = original
	}
}

func TestARemovedEntryIsFound(t *testing.T) {
	all := newTrail(9, nil)
	for i := range len(all) - 1 {
		wantTampered(t, slices.Delete(slices.Clone(all), i, i+1), nil, "entries are missing")
	}
}

func TestARepeatedEntryIsFound(t *testing.T) {
	all := newTrail(9, nil)
	for i := range all {
		wantTampered(t, slices.Insert(slices.Clone(all), i+1, all[i]), nil, "which was there before")
	}
}

func TestSwappedEntriesAreFound(t *testing.T) {
	all := newTrail(9, nil)
	for i := range all {
		for j := range i {
			swapped := slices.Clone(all)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			wantTampered(t, swapped, nil, "entries are missing")
			swapped[i].Hash, swapped[j].Hash = swapped[j].Hash, swapped[i].Hash
			wantTampered(t, swapped, nil, "entries are missing")
		}
	}
}

func TestACutTrailIsFoundByItsCheckpoint(t *testing.T) {
	all := newTrail(9, nil)
	checkpoints := []audit.Checkpoint{all.checkpoint(9), all.checkpoint(4)}
	for n := range len(all) {
		if _, err := audit.Verify(all[:n].all(), nil); err != nil {
			t.Errorf("Verify() of %d entries without a checkpoint err = %v, want nil", n, err)
		}
		wantTampered(t, all[:n], checkpoints, "the end was cut off")
	}
}

// A forger without the token recomputes all entries, hashes and sequences.
func TestARewrittenTrailIsFoundByAnEarlierCheckpoint(t *testing.T) {
	all := newTrail(9, nil)
	checkpoints := []audit.Checkpoint{all.checkpoint(6)}
	for i := range 6 {
		forged := newTrail(9, func(e *audit.Entry) {
			if e.Sequence == uint64(i) {
				e.Actor = "user:mallory"
			}
		})
		if _, err := audit.Verify(forged.all(), nil); err != nil {
			t.Errorf("Verify() without a checkpoint err = %v, want nil", err)
		}
		wantTampered(t, forged, checkpoints, "checkpoint of size 6")
	}
}

func TestAnEntryTakenOutAndRechainedIsFoundByACheckpoint(t *testing.T) {
	var without []audit.Entry
	for n := range uint64(8) {
		e := entryAt(n)
		if n >= 3 {
			e = entryAt(n + 1)
			e.Sequence = n
		}
		without = append(without, e)
	}
	wantTampered(t, chained(without), []audit.Checkpoint{newTrail(9, nil).checkpoint(5)}, "checkpoint of size 5")
}

func TestOneOfTwoContradictingCheckpointsFails(t *testing.T) {
	all := newTrail(9, nil)
	other := audit.Checkpoint{Origin: origin, Size: 6, Root: audit.Hash{1}}
	wantTampered(t, all, []audit.Checkpoint{all.checkpoint(6), other}, "checkpoint of size 6")
	wantTampered(t, all, []audit.Checkpoint{other, all.checkpoint(6)}, "checkpoint of size 6")
	other.Size = 0
	wantTampered(t, all, []audit.Checkpoint{other}, "checkpoint of size 0")
}

func TestAnEntryThatIsNoneIsFound(t *testing.T) {
	b := []byte("hello")
	all := append(newTrail(2, nil), audit.Stored{Bytes: b})
	all[2].Hash = audit.Chain(all[1].Hash, b)
	wantTampered(t, all, nil, "entry 2")
	if _, err := audit.Verify(all.all(), nil); !errors.Is(err, audit.ErrEntry) {
		t.Errorf("Verify() err = %v, want %v", err, audit.ErrEntry)
	}
}

func TestAResultSaysWhatHeldBeforeTheFault(t *testing.T) {
	all := newTrail(9, nil)
	checkpoints := []audit.Checkpoint{all.checkpoint(3), all.checkpoint(8)}
	want := audit.Result{Entries: 5, Head: all[4].Hash, Root: all.checkpoint(5).Root, Checkpoints: 1, Unattested: 2}
	all[5].Hash = audit.Hash{}
	got, err := audit.Verify(all.all(), checkpoints)
	if !errors.Is(err, audit.ErrTampered) {
		t.Errorf("Verify() err = %v, want %v", err, audit.ErrTampered)
	}
	wantEqual(t, "Verify()", got, want)
}

func TestClocksMayBeSetBack(t *testing.T) {
	all := newTrail(9, func(e *audit.Entry) {
		if e.Sequence == 3 || e.Sequence == 4 || e.Sequence == 7 {
			e.Time = e.Time.Add(-time.Hour)
		}
	})
	got, err := audit.Verify(all.all(), nil)
	if err != nil {
		t.Fatalf("Verify() err = %v, want nil", err)
	}
	wantEqual(t, "Backwards", got.Backwards, 2)
}

func TestAStoreThatFailsIsNotTamperedWith(t *testing.T) {
	broken := errors.New("disk is gone")
	all := newTrail(3, nil)
	entries := func(yield func(audit.Stored, error) bool) {
		for _, s := range all {
			if !yield(s, nil) {
				return
			}
		}
		if yield(audit.Stored{}, broken) {
			t.Error("Verify() goes on after an error")
		}
	}
	got, err := audit.Verify(entries, []audit.Checkpoint{all.checkpoint(3)})
	if !errors.Is(err, broken) || errors.Is(err, audit.ErrTampered) {
		t.Errorf("Verify() err = %v, want %v alone", err, broken)
	}
	wantEqual(t, "Entries", got.Entries, 3)
}

// many yields n entries of about 1 KiB from one buffer, and overwrites each when the next is
// requested. It reports the heap at half time and at the end.
func many(n uint64, heap *[2]uint64) iter.Seq2[audit.Stored, error] {
	return func(yield func(audit.Stored, error) bool) {
		var head audit.Hash
		var buffer []byte
		for i := range n {
			e := entryAt(i)
			e.Detail = strings.Repeat("x", 1000)
			buffer = append(buffer[:0], e.Bytes()...)
			head = audit.Chain(head, buffer)
			if !yield(audit.Stored{Bytes: buffer, Hash: head}, nil) {
				return
			}
			clear(buffer)
			if i == n/2 || i == n-1 {
				heap[i/(n-1)] = heapInUse()
			}
		}
	}
}

func heapInUse() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestVerifyKeepsNoEntries(t *testing.T) {
	const n = 1 << 15
	var heap [2]uint64
	got, err := audit.Verify(many(n, &heap), nil)
	if err != nil {
		t.Fatalf("Verify() err = %v, want nil", err)
	}
	wantEqual(t, "Entries", got.Entries, n)
	if heap[1] > heap[0]+1<<20 {
		t.Errorf("heap grew from %d to %d bytes while half of %d entries of 1 KiB were read", heap[0], heap[1], n)
	}
}
