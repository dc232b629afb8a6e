package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
)

var made = time.Unix(1_800_000_000, 0).UTC()

func furnish(tb testing.TB, s *Store) {
	tb.Helper()
	if err := s.AddIdentity(tb.Context(), store.Identity{Name: "alice", CreatedAt: made}); err != nil {
		tb.Fatal(err)
	}
	if err := s.AddWrappingKey(tb.Context(), store.WrappingKey{ID: []byte("k1"), Purpose: store.Seal, Current: true, CreatedAt: made}); err != nil {
		tb.Fatal(err)
	}
}

// batchFrom makes n key packages of the size of suite 2's, with refs as random as KeyPackageRefs are.
func batchFrom(source *rand.Rand, n int) []store.KeyPackage {
	batch := make([]store.KeyPackage, n)
	for i := range batch {
		ref := make([]byte, 32)
		for j := 0; j < len(ref); j += 8 {
			binary.BigEndian.PutUint64(ref[j:], source.Uint64())
		}
		batch[i] = store.KeyPackage{
			Ref: ref, Identity: "alice", Version: 1, Suite: 2, State: store.Available, Custody: "wrapped", WrappingKeyID: []byte("k1"),
			Sealed: make([]byte, 110), Public: make([]byte, 350), CreatedAt: made, NotBefore: made.Add(-time.Hour), NotAfter: made.Add(84 * 24 * time.Hour),
		}
	}
	return batch
}

func fill(tb testing.TB, s *Store, source *rand.Rand, n int) {
	tb.Helper()
	const size = 20000
	for range n / size {
		if err := s.AddKeyPackages(context.Background(), batchFrom(source, size)); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkAddKeyPackages reports rows a second in batches of 500, the config's default, with
// commits on the disk.
func BenchmarkAddKeyPackages(b *testing.B) {
	s := openAt(b, postgrestest.Start(b, postgrestest.Options{Durable: true}).Database(b))
	furnish(b, s)
	source := rand.New(rand.NewPCG(1, 2))
	n := 0
	for b.Loop() {
		batch := batchFrom(source, 500)
		if err := s.AddKeyPackages(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		n += len(batch)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkClaims has 64 clients claim one key package after the other, with commits on the
// disk, and reports claims a second and how long the slowest in a hundred took. The clients are in
// one process, or in three. A million rows take a minute to fill in; -short leaves them out.
func BenchmarkClaims(b *testing.B) {
	for _, stored := range []int{100_000, 1_000_000} {
		if testing.Short() && stored > 100_000 {
			continue
		}
		server := postgrestest.Start(b, postgrestest.Options{Durable: true, Settings: []string{"max_connections=200", "shared_buffers=1GB", "max_wal_size=4GB"}})
		url := server.Database(b)
		first := openAt(b, url)
		furnish(b, first)
		fill(b, first, rand.New(rand.NewPCG(1, 2)), stored)
		for _, settle := range []string{"VACUUM ANALYZE", "CHECKPOINT"} { // what filling in has left behind
			if _, err := first.pool.Exec(b.Context(), settle); err != nil {
				b.Fatal(err)
			}
		}
		for _, processes := range []int{1, 3} {
			stores := []*Store{first}
			for len(stores) < processes {
				stores = append(stores, openAt(b, url))
			}
			b.Run(fmt.Sprintf("stored=%d/processes=%d", stored, processes), func(b *testing.B) { benchmarkClaims(b, stores) })
		}
	}
}

func benchmarkClaims(b *testing.B, stores []*Store) {
	const clients = 64
	var left atomic.Int64
	left.Store(int64(b.N))
	times := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range clients {
		wg.Go(func() {
			s := stores[i%len(stores)]
			for left.Add(-1) >= 0 {
				start := time.Now()
				got, err := s.Claim(b.Context(), "alice", 1, made)
				if err != nil || len(got) != 1 {
					b.Errorf("Claim() = %d, %v, want 1", len(got), err)
					return
				}
				times[i] = append(times[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
}
