package sqlite

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// BenchmarkOthersWait ends half a million key packages at once, in batches of the config's default
// size. It reports how long all of it took, how long its first transaction took, and how long
// another opening of the store waited at most for each of two acts: an entry in the trail, and a
// claim. Filling in takes a minute; -short leaves it out.
func BenchmarkOthersWait(b *testing.B) {
	if testing.Short() {
		b.Skip("short")
	}
	for what, begin := range map[string]func(*Store) (store.Backlog, error){
		"retire": func(s *Store) (store.Backlog, error) {
			return s.RetireIdentity(context.Background(), "alice", schema1Time.Add(time.Hour), schema1Time)
		},
		"rotate": func(s *Store) (store.Backlog, error) {
			return s.SwitchIdentity(context.Background(), "alice", 2, schema1Time.Add(time.Hour), schema1Time)
		},
		"shred": func(s *Store) (store.Backlog, error) {
			return s.CondemnWrappingKey(context.Background(), store.Intent{KeyID: []byte("k1"), Object: store.ObjectSealingKey, Destroy: true, CreatedAt: schema1Time}, true)
		},
	} {
		b.Run(what, func(b *testing.B) { othersWait(b, begin) })
	}
}

func othersWait(b *testing.B, begin func(*Store) (store.Backlog, error)) {
	const many = 500_000
	path := filepath.Join(b.TempDir(), "store.db")
	s, err := Open(b.Context(), path, Options{Create: true, BusyTimeout: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	furnish(b, s)
	next := store.Identity{Name: "alice", Version: 2, KeyID: []byte("next"), CreatedAt: schema1Time}
	if err := s.ProposeIdentity(b.Context(), next); err != nil {
		b.Fatal(err)
	}
	source := rand.New(rand.NewPCG(1, 2))
	fill(b, s, source, many)
	if err := s.AddWrappingKey(b.Context(), store.WrappingKey{ID: []byte("k2"), Purpose: store.Seal, Current: true, CreatedAt: schema1Time}); err != nil {
		b.Fatal(err)
	}
	kept := randomBatch(source, 20_000) // these may be claimed
	for i := range kept {
		kept[i].Version, kept[i].WrappingKeyID = 2, []byte("k2")
		kept[i].NotBefore, kept[i].NotAfter = schema1Time.Add(-time.Hour), schema1Time.Add(time.Hour)
	}
	if err := s.AddKeyPackages(b.Context(), kept); err != nil {
		b.Fatal(err)
	}
	other, err := Open(b.Context(), path, Options{BusyTimeout: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer other.Close()
	b.ResetTimer()
	ctx, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	waits := make(map[string]time.Duration)
	wg.Go(func() {
		for kind := 0; ctx.Err() == nil; kind++ {
			start := time.Now()
			var err error
			what := []string{"ms/entry", "ms/claim"}[kind%2]
			if kind%2 == 0 {
				err = other.Record(ctx, audit.Entry{Time: schema1Time, Act: audit.Refused})
			} else {
				_, err = other.Claim(ctx, "alice", 1, schema1Time)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				b.Errorf("write beside it: %v", err)
			}
			waits[what] = max(waits[what], time.Since(start))
			time.Sleep(rand.N(20 * time.Millisecond))
		}
	})
	start := time.Now()
	backlog, err := begin(s)
	first := time.Since(start)
	for err == nil && !backlog.Finished() {
		backlog, err = s.WorkOff(b.Context(), backlog.ID, 500, schema1Time)
	}
	took := time.Since(start)
	stop()
	wg.Wait()
	if err != nil || backlog.Moved < many {
		b.Fatalf("WorkOff() ends with %+v, %v, want %d", backlog, err, many)
	}
	b.ReportMetric(took.Seconds(), "s/whole")
	b.ReportMetric(float64(first.Milliseconds()), "ms/first")
	for what, wait := range waits {
		b.ReportMetric(float64(wait.Milliseconds()), what)
	}
}
