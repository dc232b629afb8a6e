package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/postgres/postgrestest"
)

// BenchmarkSurvey asks for the pools of ten thousand identities, and for the ends of lifetimes.
func BenchmarkSurvey(b *testing.B) {
	s := openAt(b, postgrestest.Shared(b).Database(b))
	furnish(b, s)
	identities, each := 10_000, 20
	if testing.Short() {
		identities = 100
	}
	source := rand.New(rand.NewPCG(1, 2))
	for i := range identities / 100 {
		var batch []store.KeyPackage
		for j := range 100 {
			name := fmt.Sprintf("device-%d", 100*i+j)
			if err := s.AddIdentity(context.Background(), store.Identity{Name: name, KeyID: []byte(name), CreatedAt: made}); err != nil {
				b.Fatal(err)
			}
			for k := range each {
				one := batchFrom(source, 1)[0]
				one.Identity, one.NotAfter = name, made.Add(time.Duration(k*100)*time.Hour)
				batch = append(batch, one)
			}
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
