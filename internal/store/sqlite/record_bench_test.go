package sqlite

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// BenchmarkRecord lets many callers add one entry after the other, as SignWithLabel does, with
// commits on the disk.
func BenchmarkRecord(b *testing.B) {
	s, err := Open(b.Context(), b.TempDir()+"/store.db", Options{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	for _, callers := range []int{1, 32, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						e := audit.Entry{Time: schema1Time, Act: audit.Signed, Identity: "alice", KeyID: make([]byte, 20), Detail: time.Now().String()}
						if err := s.Record(b.Context(), e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
