package load

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pace says how fast and how long clients act.
type pace struct {
	clients []*client
	// n is the most acts; none begins after until.
	n     int
	until time.Time
	// rate is how many acts all clients together begin a second, each at its time, however long the
	// previous one took. 0 means that each client acts as soon as it can.
	rate float64
	// begun counts the acts that have begun. It may be read meanwhile.
	begun atomic.Int64
}

// measured is the result of a drive.
type measured struct {
	times  []time.Duration // sorted
	took   time.Duration
	failed []error // the first errors
}

// drive lets all clients act, and measures. With a rate, an act's duration is counted from when it
// was due, so that an act that had to wait for the previous one counts as late.
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

// due returns when a client's k-th act is due, or zero if there are no more.
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

// perSecond returns the number of acts a second.
func (m *measured) perSecond() float64 { return float64(len(m.times)) / m.took.Seconds() }

// quantile returns the duration that the share q of all acts did not exceed.
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
