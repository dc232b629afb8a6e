package observe

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// windowMinutes is the span that the page calls "lately".
const windowMinutes = 5

// window counts the events of the last minutes by name. There are few names.
type window struct {
	mu      sync.Mutex
	minutes [windowMinutes]minute
}

type minute struct {
	number int64 // of the minute, since 1970
	by     map[string]*tally
}

// tally counts the events of one name. It counts durations by bound.
type tally struct {
	Name      string
	N, Failed uint64
	within    []uint64 // by bound, and beyond the last
}

func (w *window) add(now time.Time, name string, took time.Duration, failed bool) {
	number := now.Unix() / 60
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.minutes[number%windowMinutes]
	if m.number != number {
		m.number, m.by = number, make(map[string]*tally)
	}
	t := m.by[name]
	if t == nil {
		t = newTally(name)
		m.by[name] = t
	}
	t.N++
	if failed {
		t.Failed++
	}
	i, _ := slices.BinarySearch(bounds, took.Seconds())
	t.within[i]++
}

func newTally(name string) *tally { return &tally{Name: name, within: make([]uint64, len(bounds)+1)} }

// sum returns the tallies of the window, by name.
func (w *window) sum(now time.Time) []*tally {
	number := now.Unix() / 60
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[string]*tally)
	for i := range w.minutes {
		m := &w.minutes[i]
		if m.number <= number-windowMinutes || m.number > number {
			continue
		}
		for name, t := range m.by {
			if all[name] == nil {
				all[name] = newTally(name)
			}
			all[name].add(t)
		}
	}
	out := make([]*tally, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out
}

func (t *tally) add(other *tally) {
	t.N += other.N
	t.Failed += other.Failed
	for i, n := range other.within {
		t.within[i] += n
	}
}

// total returns the sum of all tallies.
func total(of []*tally) *tally {
	sum := newTally("")
	for _, t := range of {
		sum.add(t)
	}
	return sum
}

// quantile returns the duration that the share q did not exceed. It interpolates within a bound; if
// the result lies beyond the last bound, it returns that bound.
func (t *tally) quantile(q float64) time.Duration {
	rank, below := q*float64(t.N), 0.0
	for i, n := range t.within {
		if float64(n) == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		if i == len(bounds) {
			break
		}
		low := 0.0
		if i > 0 {
			low = bounds[i-1]
		}
		return time.Duration((low + (bounds[i]-low)*(rank-below)/float64(n)) * float64(time.Second))
	}
	return time.Duration(bounds[len(bounds)-1] * float64(time.Second))
}
