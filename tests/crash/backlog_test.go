package crash

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// manyAtOnce is a verb that decides something about many key packages at once and works that off in
// batches.
type manyAtOnce struct {
	verb
	count string // the number of key packages in its output
}

func (p *prepared) manyAtOnce() []manyAtOnce {
	retired, erased := `retired (\d+) key packages?`, `private keys of (\d+) key packages?`
	return []manyAtOnce{
		{verb{name: "identity retire", args: []string{"identity", "retire", "alice"}}, retired},
		{verb{name: "identity rotate", args: []string{"identity", "rotate", "alice", "--out", "OUT"}}, retired},
		{verb{name: "shred", args: []string{"wrap-key", "destroy", "--shred", p.old["seal"]}, over: "destroyed"}, erased},
		{verb{name: "shred in token", args: []string{"wrap-key", "destroy", "--shred", p.old["wrap"]}, over: "destroyed"}, erased},
	}
}

// After a kill between two batches, nothing is in a forbidden state; the same command continues,
// and the count that it prints covers both runs.
func TestKilledBetweenBatches(t *testing.T) {
	p := prepare(t)
	k := buildKiller(t)
	for _, v := range p.manyAtOnce() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			killBetween(t, k, p, v)
		})
	}
}

func killBetween(t *testing.T, k killer, p *prepared, v manyAtOnce) {
	unharmed := p.copy(t)
	whole := v.countOf(t, unharmed.Run(v.in(unharmed.Installation)...))
	again := p.copy(t)
	calls, _ := k.run(t, again.Command(v.in(again.Installation)...), 0)
	points, between := storeCalls(calls), 0
	for _, at := range points {
		i := p.copy(t)
		_, killed := k.run(t, i.Command(v.in(i.Installation)...), at)
		if killed {
			i.mendToken(t)
		}
		left := i.interrupted(t)
		out, err := i.Command(v.in(i.Installation)...).CombinedOutput()
		switch {
		case err != nil && (v.over == "" || len(left) > 0 || !strings.Contains(string(out), v.over)):
			t.Errorf("killed at call %d, run again: %v\n%s", at, err, out)
		case len(left) > 0 && v.countOf(t, out) != whole:
			t.Errorf("killed at call %d with %+v, run again it says\n%swant %s", at, left, out, whole)
		}
		if len(left) > 0 && left[0].Moved > 0 {
			between++
		}
		i.interrupted(t)
		i.Run("sweep", "--unfinished", "0s")
		i.Run("export", "--pending", "--out", outFolder(i.Installation))
		for _, err := range rest(i.Installation, p.welcomeFaults).Faults {
			t.Errorf("killed at call %d: %v", at, err)
		}
		if err := os.RemoveAll(i.Dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("killed at %d of %d calls, %d times between two batches of %s", len(points), len(calls), between, whole)
	if between == 0 {
		t.Error("no kill came between two batches: it tells nothing")
	}
}

// countOf returns the number of key packages that a command prints.
func (v manyAtOnce) countOf(t *testing.T, out []byte) string {
	t.Helper()
	found := regexp.MustCompile(v.count).FindSubmatch(out)
	if found == nil {
		t.Errorf("%s says\n%swant a count", v.name, out)
		return ""
	}
	return string(found[1])
}

// storeCalls selects, of the calls about the store, those at which a command has begun to end key
// packages: the last of them.
func storeCalls(calls []string) []int {
	var points []int
	for n, call := range calls {
		if strings.Contains(call, "hsm-kp.db") {
			points = append(points, n+1)
		}
	}
	if !*every {
		points = some(points[len(points)/2:], most)
	}
	return slices.Compact(points)
}

// interrupted checks the state after a kill, before any repair. Whatever the rows say, the store
// hands out no key package of a version that no longer signs, and shows no private keys under a
// condemned key. It returns the backlogs that are left.
func (p *prepared) interrupted(t *testing.T) (left []store.Backlog) {
	t.Helper()
	err := p.Open(func(o *program.Opened) {
		for _, err := range interruptedFaults(o) {
			t.Error(err)
		}
		var err error
		if left, err = o.Store.Backlogs(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	return left
}

func interruptedFaults(o *program.Opened) (faults []error) {
	ctx := context.Background()
	condemned := make(map[string]bool)
	keys, err := o.Store.WrappingKeys(ctx)
	if err != nil {
		return []error{err}
	}
	for _, k := range keys {
		condemned[string(k.ID)] = k.Condemned
	}
	handed := []store.State{store.Pending, store.Available, store.Published, store.Claimed}
	for record, err := range o.Store.KeyPackages(ctx, store.Filter{}) {
		if err != nil {
			return append(faults, err)
		}
		id, err := o.Store.Identity(ctx, record.Identity)
		if err != nil {
			return append(faults, err)
		}
		over := record.Version < id.Version || record.Version == id.Version && !id.RetiredAt.IsZero()
		if over && slices.Contains(handed, record.State) {
			faults = append(faults, fmt.Errorf("%x is %s, and version %d no longer signs", record.Ref, record.State, record.Version))
		}
		if condemned[string(record.WrappingKeyID)] && len(record.Sealed)+len(record.Leaf) > 0 {
			faults = append(faults, fmt.Errorf("%x is %s, and has private keys under a condemned key", record.Ref, record.State))
		}
	}
	return faults
}
