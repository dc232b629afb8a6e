package postgres

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
)

var load = flag.Int("load", 20_000, "how many key packages to store, and to claim under load")

const loadClients = 64

// 64 clients claim from one process as fast as they can, then at several rates, beside batches that
// are added and beside a sweep, and then three processes claim the rest: no key package is handed
// out twice, and none is left. The test logs how long claims took.
func TestLoad(t *testing.T) {
	url := postgrestest.Start(t, postgrestest.Options{Durable: true, Settings: loadSettings}).Database(t)
	s := openAt(t, url)
	furnish(t, s)
	start := time.Now()
	fill(t, s, rand.New(rand.NewPCG(9, 9)), *load)
	t.Logf("%d key packages added, %.0f a second", *load, float64(*load)/time.Since(start).Seconds())
	settle(t, s)
	told := &ledger{claimed: map[string]int{}}
	some := *load / 20
	told.log(t, "one process", func() []time.Duration { return told.closed(t, s, some) })
	for _, rate := range []int{500, 1000, 2000, 4000} {
		told.log(t, fmt.Sprint("at ", rate, " a second"), func() []time.Duration { return told.paced(t, s, rate, some) })
	}
	told.log(t, "at 1000 a second, beside batches of 500", func() []time.Duration {
		return told.beside(t, s, some, func(ctx context.Context) error {
			return s.AddKeyPackages(ctx, batchFrom(rand.New(rand.NewPCG(rand.Uint64(), 1)), 500))
		})
	})
	expiring(t, s, some)
	told.log(t, "at 1000 a second, beside a sweep", func() []time.Duration {
		return told.beside(t, s, some, func(ctx context.Context) error {
			_, err := s.Sweep(ctx, made.Add(2*time.Hour), time.Hour)
			return err
		})
	})
	told.log(t, "three processes, until none is left", func() []time.Duration { return told.processes(t, url) })
	told.none(t, s)
}

// disk writes 8 KiB fifty times a second, each on the disk before the next, while claims are paced:
// a commit cannot be faster.
func disk(ctx context.Context, t *testing.T) (took []time.Duration) {
	f, err := os.CreateTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		start := time.Now()
		if _, err := f.WriteAt(make([]byte, 8<<10), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	return took
}

// loadSettings are those of a server with a few GiB of memory.
var loadSettings = []string{"max_connections=200", "shared_buffers=1GB", "max_wal_size=4GB"}

// settle does what filling in has left behind.
func settle(tb testing.TB, s *Store) {
	tb.Helper()
	for _, act := range []string{"VACUUM ANALYZE", "CHECKPOINT"} {
		if _, err := s.pool.Exec(tb.Context(), act); err != nil {
			tb.Fatal(err)
		}
	}
}

// expiring adds key packages of another identity with a lifetime of an hour.
func expiring(t *testing.T, s *Store, n int) {
	if err := s.AddIdentity(t.Context(), store.Identity{Name: "bob", CreatedAt: made}); err != nil {
		t.Fatal(err)
	}
	batch := batchFrom(rand.New(rand.NewPCG(8, 8)), n)
	for i := range batch {
		batch[i].Identity, batch[i].NotAfter = "bob", made.Add(time.Hour)
	}
	if err := s.AddKeyPackages(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func (l *ledger) log(t *testing.T, what string, f func() []time.Duration) {
	start := time.Now()
	took := f()
	if len(took) == 0 {
		t.Fatalf("%s: no claims", what)
	}
	slices.Sort(took)
	t.Logf("%s: %d, %.0f a second, half in %v, 99 in 100 in %v, all in %v", what, len(took),
		float64(len(took))/time.Since(start).Seconds(), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

// one claims one key package.
func (l *ledger) one(t *testing.T, s *Store) bool {
	got, err := s.Claim(t.Context(), "alice", 1, made)
	if err != nil || len(got) != 1 {
		t.Errorf("Claim() = %d, %v, want 1", len(got), err)
		return false
	}
	l.claim(got)
	return true
}

// closed makes each client claim as soon as its last claim is done.
func (l *ledger) closed(t *testing.T, s *Store, n int) []time.Duration {
	return clients(func(i int) (took []time.Duration) {
		for range n / loadClients {
			start := time.Now()
			if !l.one(t, s) {
				break
			}
			took = append(took, time.Since(start))
		}
		return took
	})
}

// paced starts claims at a rate, whether the ones before are done or not. The time of a claim counts
// from when it was due.
func (l *ledger) paced(t *testing.T, s *Store, rate, n int) []time.Duration {
	n = min(n, 10*rate) // seconds
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		l.log(t, "meanwhile, 8 KiB on the disk", func() []time.Duration { return disk(ctx, t) })
	})
	defer wg.Wait()
	defer cancel()
	start := time.Now().Add(10 * time.Millisecond)
	return clients(func(i int) (took []time.Duration) {
		for ; i < n; i += loadClients {
			due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
			time.Sleep(time.Until(due))
			if !l.one(t, s) {
				break
			}
			took = append(took, time.Since(due))
		}
		return took
	})
}

// beside starts 1000 claims a second while another act runs over and over.
func (l *ledger) beside(t *testing.T, s *Store, n int, act func(context.Context) error) []time.Duration {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		done := 0
		for ; ctx.Err() == nil; done++ {
			if err := act(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("beside claims: err = %v, want nil", err)
				return
			}
		}
		t.Logf("done beside claims: %d times", done)
	})
	defer wg.Wait()
	defer cancel()
	return l.paced(t, s, 1000, n)
}

func clients(f func(int) []time.Duration) []time.Duration {
	var wg sync.WaitGroup
	took := make([][]time.Duration, loadClients)
	for i := range loadClients {
		wg.Go(func() { took[i] = f(i) })
	}
	wg.Wait()
	return slices.Concat(took...)
}

// processes makes three processes claim what is left.
func (l *ledger) processes(t *testing.T, url string) (took []time.Duration) {
	var wg sync.WaitGroup
	claimers := []*claimer{{clients: 22}, {clients: 21}, {clients: 21}}
	for _, c := range claimers {
		c.n, c.limit = 1, 1<<62
		wg.Go(func() { c.run(t, url) })
	}
	wg.Wait()
	for _, c := range claimers {
		t.Logf("a process claimed %d; resident KiB after every thousandth claim of its first client: %v", len(c.refs), c.resident)
		took = append(took, c.took...)
		for _, ref := range c.refs {
			l.claimed[string(unhex(t, ref))]++
		}
	}
	return took
}

// none checks that no key package of alice's is left, and that none was handed out twice.
func (l *ledger) none(t *testing.T, s *Store) {
	t.Helper()
	for ref, n := range l.claimed {
		if n != 1 {
			t.Errorf("key package %x was handed out %d times", ref, n)
		}
	}
	counts, err := s.Count(t.Context(), "alice")
	if err != nil || counts[store.Available] != 0 || counts[store.Claimed] != uint64(len(l.claimed)) {
		t.Errorf("Count() = %v, %v, want %d claimed and none available", counts, err, len(l.claimed))
	}
	if _, err := audit.Verify(s.Entries(t.Context(), 0), nil); err != nil {
		t.Errorf("Verify() err = %v, want nil", err)
	}
}
