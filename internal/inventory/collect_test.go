package inventory

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

func TestBatchesAreFullButForTheLast(t *testing.T) {
	c := newCollector(10, time.Hour)
	var workers sync.WaitGroup
	for range 7 {
		workers.Go(func() {
			for i := range 9 {
				c.add(store.KeyPackage{Version: uint64(i)})
			}
		})
	}
	go func() {
		workers.Wait()
		c.end()
	}()
	var sizes, n int
	for {
		batch := c.take()
		if len(batch) == 0 {
			break
		}
		if n += len(batch); len(batch) == 10 {
			sizes++
		}
	}
	if n != 63 || sizes != 6 {
		t.Errorf("take() gave %d key packages, %d full batches; want 63 and 6", n, sizes)
	}
}

func TestABatchThatDoesNotFillIsTakenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(10, time.Second)
		start := time.Now()
		go func() {
			for range 3 {
				c.add(store.KeyPackage{})
				time.Sleep(700 * time.Millisecond)
			}
			time.Sleep(10 * time.Second)
			c.add(store.KeyPackage{})
			time.Sleep(time.Minute)
			c.end()
		}()
		var got []time.Duration
		n := 0
		for {
			batch := c.take()
			if len(batch) == 0 {
				break
			}
			n += len(batch)
			got = append(got, time.Since(start))
		}
		// The second comes with the third, and the last as soon as it is there.
		if n != 4 || len(got) != 3 || got[0] != time.Second || got[1] != 2*time.Second || got[2] != 12100*time.Millisecond {
			t.Errorf("take() gave %d key packages, at %v", n, got)
		}
	})
}

func TestNobodyWaitsWhereNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(2, time.Second)
		var workers sync.WaitGroup
		for range 5 {
			workers.Go(func() {
				for range 5 {
					c.add(store.KeyPackage{})
				}
			})
		}
		synctest.Wait()
		c.end()
		workers.Wait()
	})
}
