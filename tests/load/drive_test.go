package load

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pace is how clients act.
type pace struct {
	clients []*client
	// n is how many acts there are, at most; until, when no more are begun.
	n     int
	until time.Time
	// rate is how many a second there are to be, by all clients together, each at its time,
	// whether the one before it took long or not. 0: each client acts as soon as it can.
	rate float64
	// begun counts; it may be watched meanwhile.
	begun atomic.Int64
}

// measured is what came of it.
type measured struct {
	times  []time.Duration // in order of size
	took   time.Duration
	failed []error // the first ones
}

// drive has all clients act, and measures. With a rate, an act's time is counted from when it was
// due: one that had to wait for the one before it was late, and is measured so.
func (p *pace) drive(act func(c *client, n int) error) measured {
	times, errs := make([][]time.Duration, len(p.clients)), make([]error, len(p.clients))
	start := time.Now()
	var wg sync.WaitGroup
	for i, c := range p.clients {
		wg.Go(func() {
			for k := 0; errs[i] == nil; k++ {
				due := p.due(start, i, k)
				if due.IsZero() {
					return
				}
				time.Sleep(time.Until(due))
				if errs[i] = act(c, i); errs[i] == nil {
					times[i] = append(times[i], time.Since(due))
				}
			}
		})
	}
	wg.Wait()
	m := measured{times: slices.Concat(times...), took: time.Since(start)}
	slices.Sort(m.times)
	for _, err := range errs {
		if err != nil {
			m.failed = append(m.failed, err)
		}
	}
	return m
}

// due is when a client's k-th act is due; zero: there are no more.
func (p *pace) due(start time.Time, i, k int) time.Time {
	due := time.Now()
	if p.rate > 0 {
		number := float64(k*len(p.clients) + i)
		due = start.Add(time.Duration(number / p.rate * float64(time.Second)))
	}
	if !p.until.IsZero() && due.After(p.until) || int(p.begun.Add(1)) > p.n {
		return time.Time{}
	}
	return due
}

// perSecond is how many acts there were a second.
func (m *measured) perSecond() float64 { return float64(len(m.times)) / m.took.Seconds() }

// quantile is what q of all acts did not take longer than.
func (m *measured) quantile(q float64) time.Duration {
	if len(m.times) == 0 {
		return 0
	}
	return m.times[min(int(q*float64(len(m.times))), len(m.times)-1)]
}

func (m *measured) String() string {
	return fmt.Sprintf("p50 %s, p99 %s, max %s at %.0f/s", ms(m.quantile(0.5)), ms(m.quantile(0.99)), ms(m.quantile(1)), m.perSecond())
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
