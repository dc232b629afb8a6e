// Package observe shows those who operate the service how it is: metrics for Prometheus, and
// a status page for people. It reads and changes nothing.
//
// Two things are seen. Events are counted where they happen: calls into the token, requests,
// refusals. What the store has is surveyed when somebody asks, in a few queries for all
// identities, and kept for a while: a scrape costs the same whoever scrapes and how often.
//
// What is shown is what `hsm-kp list` and `identity list` show, and names of functions, return
// values, operations, rules and reasons. There is no key, no id of one, no path and no text of
// an error in it.
package observe

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/token"
)

// Token is what is asked of a token.
type Token interface {
	Usage() token.Usage
	Info() token.Info
}

// Config is what an Observer looks at. All fields are required.
type Config struct {
	Events *Events
	Store  Store
	Token  Token
	// Ready reports whether the token and the store can be used.
	Ready func(context.Context) error
	// Busy returns how many requests are worked on, and how many may be at once.
	Busy func() (now, limit int)
	// Low is how many key packages an identity should have at least. What ends sooner than
	// Ending is none of them.
	Low    func(identity string) int
	Ending time.Duration
	// Schedule says when wrapping keys are due.
	Schedule inventory.Schedule
	// Identities is how many have metrics of their own; the rest is one.
	Identities int
	// Interval is how long a survey lasts, at least.
	Interval time.Duration
	Version  string
	Now      func() time.Time
}

const (
	// readyEvery is how often the token and the store are asked whether they are there.
	readyEvery = 5 * time.Second
	// surveyLimit is how long a survey may take.
	surveyLimit = 2 * time.Minute
)

// Observer shows what it looks at. It is safe for concurrent use.
type Observer struct {
	Config
	registry *prometheus.Registry
	survey   *cached[*survey]
	ready    *cached[time.Time] // when it was
	begun    time.Time
	cancel   context.CancelFunc
}

// New returns an Observer of what c says.
func New(c Config) (*Observer, error) {
	base, cancel := context.WithCancel(context.Background())
	s := &surveyor{store: c.Store, low: c.Low, ending: c.Ending, now: c.Now, certificates: make(map[string]certified)}
	o := &Observer{
		Config: c, registry: prometheus.NewRegistry(), begun: c.Now(), cancel: cancel,
		survey: &cached[*survey]{base: base, every: c.Interval, limit: surveyLimit, now: c.Now, f: s.take},
	}
	o.ready = &cached[time.Time]{base: base, every: readyEvery, limit: surveyLimit, now: c.Now, f: func(ctx context.Context) (time.Time, error) {
		return c.Now(), c.Ready(ctx)
	}}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hsm_kp_build_info", Help: "1, with the version of the program.",
		ConstLabels: prometheus.Labels{"version": c.Version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	all := append(c.Events.collectors(), build, &states{o}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, one := range all {
		if err := o.registry.Register(one); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return o, nil
}

// Close ends what is being asked of the token and the store.
func (o *Observer) Close() {
	o.cancel()
	o.survey.wait()
	o.ready.wait()
}

// Ready reports whether the token and the store could be used when they were last asked, a
// few seconds ago at most.
func (o *Observer) Ready(ctx context.Context) error { return o.ready.get(ctx).err }
