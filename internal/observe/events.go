package observe

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hsm-kp/hsm-kp/internal/server"
	"github.com/hsm-kp/hsm-kp/token"
)

// bounds are the upper bounds of histograms, in seconds: from a call of SoftHSM to a call of a
// network HSM that is about to fail.
var bounds = []float64{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// Events counts what a Token and a server.Server report. Its methods are safe for concurrent use
// and take less than a microsecond.
type Events struct {
	now func() time.Time

	calls      *prometheus.HistogramVec
	failures   *prometheus.CounterVec
	recoveries *prometheus.CounterVec
	requests   *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	refusals   *prometheus.CounterVec

	lastCalls    window // by function
	lastRequests window // by operation
	lastRefusals window // by operation and reason
	faults       faults
}

// NewEvents returns Events without any counts. now is the clock.
func NewEvents(now func() time.Time) *Events {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Events{
		now:        now,
		calls:      histogram("hsm_kp_token_call_duration_seconds", "How long calls into the PKCS#11 module took, by function. C_Sign has C_SignInit in it where both are one call, and so on.", "function"),
		failures:   counter("hsm_kp_token_call_failures_total", "Calls into the PKCS#11 module that failed, by function and return value. Return values that only answer a question, such as CKR_ATTRIBUTE_TYPE_INVALID, do not count.", "function", "rv"),
		recoveries: counter("hsm_kp_token_recoveries_total", "Steps that were taken to recover the token, by step; done is an operation that succeeded after some.", "step"),
		requests:   counter("hsm_kp_requests_total", "Requests that ended, by operation, by the rule that granted them, and by gRPC code.", "operation", "rule", "code"),
		durations:  histogram("hsm_kp_request_duration_seconds", "How long requests took, by operation.", "operation"),
		refusals:   counter("hsm_kp_refusals_total", "Requests and connections that were refused, by operation and reason.", "operation", "reason"),
	}
}

func (e *Events) collectors() []prometheus.Collector {
	return []prometheus.Collector{e.calls, e.failures, e.recoveries, e.requests, e.durations, e.refusals}
}

// answers are return values that answer a question: the call did not fail.
var answers = []token.RV{
	0, token.CKR_ATTRIBUTE_TYPE_INVALID, token.CKR_ATTRIBUTE_SENSITIVE, token.CKR_BUFFER_TOO_SMALL, token.CKR_USER_ALREADY_LOGGED_IN,
}

// Call is for token.Config.Watch.
func (e *Events) Call(c token.Call) {
	e.calls.WithLabelValues(c.Func).Observe(c.Took.Seconds())
	now, failed := e.now(), !slices.Contains(answers, c.RV)
	e.lastCalls.add(now, c.Func, c.Took, failed)
	if !failed {
		return
	}
	e.failures.WithLabelValues(c.Func, e.faults.add(now, c.Func, c.RV)).Inc()
}

// steps are the label values of recoveries.
var steps = map[token.Step]string{
	token.StepWait: "wait", token.StepSession: "session", token.StepLogin: "login", token.StepModule: "module", token.StepDone: "done",
}

// Recover is for token.Config.Observe.
func (e *Events) Recover(r token.Recovery) { e.recoveries.WithLabelValues(steps[r.Step]).Inc() }

// Request is for server.Config.Observe.
func (e *Events) Request(r server.Request) {
	op, now := string(r.Operation), e.now()
	e.requests.WithLabelValues(op, r.Rule, r.Code).Inc()
	e.durations.WithLabelValues(op).Observe(r.Took.Seconds())
	e.lastRequests.add(now, op, r.Took, r.Code != "ok")
	if r.Refused {
		e.refusals.WithLabelValues(op, r.Reason).Inc()
		e.lastRefusals.add(now, op+" "+r.Reason, r.Took, true)
	}
}

const (
	// maxFaults is how many failed calls are remembered for the page.
	maxFaults = 8
	// maxCodes bounds how many return values have a label: a module that invents values must not
	// create metrics.
	maxCodes = 64
)

// faults remembers the last calls that failed.
type faults struct {
	mu    sync.Mutex
	codes map[token.RV]string
	last  []fault // newest first
}

// fault is a call that failed, and how often it failed in a row.
type fault struct {
	At    time.Time
	Func  string
	RV    string
	Times int
}

// add remembers a failed call, and returns the name of its return value.
func (f *faults) add(now time.Time, fn string, rv token.RV) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := f.name(rv)
	if len(f.last) > 0 && f.last[0].Func == fn && f.last[0].RV == name {
		f.last[0].At = now
		f.last[0].Times++
		return name
	}
	f.last = append([]fault{{now, fn, name, 1}}, f.last[:min(len(f.last), maxFaults-1)]...)
	return name
}

func (f *faults) name(rv token.RV) string {
	name, known := f.codes[rv]
	switch {
	case known:
		return name
	case f.codes == nil:
		f.codes = make(map[token.RV]string)
	case len(f.codes) >= maxCodes:
		return "other"
	}
	f.codes[rv] = rv.Name()
	return f.codes[rv]
}

// list returns the faults, newest first.
func (f *faults) list() []fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]fault(nil), f.last...)
}
