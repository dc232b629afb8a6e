// Package observe shows operators the state of the service: metrics for Prometheus, and a status
// page for people. It reads and changes nothing.
//
// It has two sources. Events (calls into the token, requests, refusals) are counted where they
// happen. The content of the store is surveyed on demand, in a few queries for all identities, and
// cached for a while: the cost does not depend on who scrapes or how often.
//
// It shows what `hsm-kp list` and `identity list` show, and names of functions, return values,
// operations, rules and reasons. It shows no key, key id, path or error text.
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

// Token is what an Observer asks of a token.
type Token interface {
	Usage() token.Usage
	Info() token.Info
}

// Config configures an Observer. All fields are required.
type Config struct {
	Events *Events
	Store  Store
	Token  Token
	// Ready reports whether the token and the store can be used.
	Ready func(context.Context) error
	// Busy returns how many requests are running, and how many may run at once.
	Busy func() (now, limit int)
	// Low returns how many key packages an identity should have at least. Those that end within
	// Ending do not count.
	Low    func(identity string) int
	Ending time.Duration
	// Schedule says when wrapping keys are due.
	Schedule inventory.Schedule
	// Identities is how many identities have metrics of their own; the rest share one label.
	Identities int
	// Interval is how long a survey stays valid, at least.
	Interval time.Duration
	Version  string
	Now      func() time.Time
}

const (
	// readyEvery is how often the token and the store are asked whether they can be used.
	readyEvery = 5 * time.Second
	// surveyLimit is how long a survey may take.
	surveyLimit = 2 * time.Minute
)

// Observer shows the state of what its Config names. It is safe for concurrent use.
type Observer struct {
	Config
	registry *prometheus.Registry
	survey   *cached[*survey]
	ready    *cached[time.Time] // when it succeeded
	begun    time.Time
	cancel   context.CancelFunc
}

// New returns an Observer.
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

// Close cancels the requests to the token and the store.
func (o *Observer) Close() {
	o.cancel()
	o.survey.wait()
	o.ready.wait()
}

// Ready reports whether the token and the store could be used when they were last asked, at most a
// few seconds ago.
func (o *Observer) Ready(ctx context.Context) error { return o.ready.get(ctx).err }
