package sqlite

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// randomBatch makes n key packages of the size of suite 2's, with refs as random as KeyPackageRefs
// are.
func randomBatch(source *rand.Rand, n int) []store.KeyPackage {
	batch := rows(0, n)
	for i := range batch {
		for j := 0; j < len(batch[i].Ref); j += 8 {
			binary.BigEndian.PutUint64(batch[i].Ref[j:], source.Uint64())
		}
		batch[i].Public, batch[i].Sealed = make([]byte, 350), make([]byte, 110)
	}
	return batch
}

// fill adds n key packages, faster than batches of the usual size would.
func fill(tb testing.TB, s *Store, source *rand.Rand, n int) {
	tb.Helper()
	const size = 20000
	for range n / size {
		if err := s.AddKeyPackages(context.Background(), randomBatch(source, size)); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkAddKeyPackages reports rows a second in batches of 500, the config's default, for a store
// that has no rows, or a million. A million take half a minute to fill in; -short leaves them out.
func BenchmarkAddKeyPackages(b *testing.B) {
	for _, stored := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("stored=%d", stored), func(b *testing.B) {
			if testing.Short() && stored > 0 {
				b.Skip("short")
			}
			s := open(b, filepath.Join(b.TempDir(), "store.db"))
			furnish(b, s)
			source := rand.New(rand.NewPCG(1, 2))
			fill(b, s, source, stored)
			n := 0
			for b.Loop() {
				batch := randomBatch(source, 500)
				if err := s.AddKeyPackages(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				n += len(batch)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkKeyPackagesOfAFewAmongMany lists twenty of a hundred thousand.
func BenchmarkKeyPackagesOfAFewAmongMany(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "store.db"))
	furnish(b, s)
	if err := s.AddIdentity(b.Context(), store.Identity{Name: "bob", CreatedAt: time.Unix(1_800_000_000, 0)}); err != nil {
		b.Fatal(err)
	}
	source := rand.New(rand.NewPCG(1, 2))
	fill(b, s, source, 100_000)
	few := randomBatch(source, 20)
	for i := range few {
		few[i].Identity = "bob"
	}
	if err := s.AddKeyPackages(b.Context(), few); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := 0
		for _, err := range s.KeyPackages(b.Context(), store.Filter{Identity: "bob"}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != len(few) {
			b.Fatalf("%d key packages, want %d", n, len(few))
		}
	}
}

// BenchmarkVerifyTrail verifies a trail of half a million entries, and reports entries a second.
// -short leaves it out.
func BenchmarkVerifyTrail(b *testing.B) {
	if testing.Short() {
		b.Skip("short")
	}
	s := open(b, filepath.Join(b.TempDir(), "store.db"))
	furnish(b, s)
	fill(b, s, rand.New(rand.NewPCG(1, 2)), 500_000)
	entries := uint64(0)
	for b.Loop() {
		result, err := audit.Verify(s.Entries(b.Context(), 0), nil)
		if err != nil {
			b.Fatal(err)
		}
		entries += result.Entries
	}
	b.ReportMetric(float64(entries)/b.Elapsed().Seconds(), "entries/s")
}
