package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// BenchmarkSurvey reads the pools of ten thousand identities, and the ends of lifetimes.
func BenchmarkSurvey(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "store.db"))
	made := time.Unix(1_800_000_000, 0)
	furnish(b, s)
	identities, each := 10_000, 20
	if testing.Short() {
		identities = 100
	}
	source := rand.New(rand.NewPCG(1, 2))
	var names []string
	for i := range identities {
		names = append(names, fmt.Sprintf("device-%d", i))
		if err := s.AddIdentity(context.Background(), store.Identity{Name: names[i], KeyID: []byte(names[i]), CreatedAt: made}); err != nil {
			b.Fatal(err)
		}
	}
	for k := range each { // as they would be made over time
		batch := randomBatch(source, identities)
		for i := range batch {
			batch[i].Identity, batch[i].NotAfter = names[i], made.Add(time.Duration(k*100)*time.Hour)
		}
		if err := s.AddKeyPackages(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		pools, err := s.Pools(context.Background(), made, made.Add(24*time.Hour))
		if err != nil || len(pools) != identities {
			b.Fatalf("Pools() = %d, %v, want %d", len(pools), err, identities)
		}
		if _, err := s.Endings(context.Background(), made, 24*time.Hour, 90); err != nil {
			b.Fatal(err)
		}
	}
}
