package observe

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// others is the label of identities without metrics of their own. No name begins with a dash
// (identity.CheckName).
const others = "-others"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hsm_kp_"+name, help, labels, nil)
}

// Metrics of states, as opposed to events.
var (
	descReady = desc("ready", "1 if the token and the store can be used, else 0.")

	descIdentities   = desc("identities", "Identities that are not retired, by how their pool is: empty, low or filled.", "pool")
	descKeyPackages  = desc("key_packages", "Key packages that have their private keys, of versions of identities that sign or have signed.", "identity", "cipher_suite", "state", "last_resort")
	descExpiring     = desc("key_packages_expiring", "Available and published key packages whose lifetime ends within a time.", "identity", "cipher_suite", "within")
	descFirstExpiry  = desc("key_packages_first_expiry_timestamp_seconds", "When the first lifetime of an available or published key package ends.", "identity", "cipher_suite")
	descPoolLevel    = desc("pool_level", "Key packages that are pending, available or published, not of last resort, and do not end soon (replenish.ending).", "identity")
	descPoolLow      = desc("pool_low_mark", "What pool_level should not be below (replenish.low).", "identity")
	descCertificate  = desc("certificate_expiry_timestamp_seconds", "When the first certificate of an X.509 credential ends.", "identity")
	descStored       = desc("store_key_packages", "All key packages in the store.", "state")
	descWrappingKeys = desc("wrapping_keys", "Wrapping keys that are not destroyed, by purpose and whether key packages are still put under them.", "purpose", "status")
	descWrappingUses = desc("wrapping_key_uses", "How often the current wrapping key of a purpose was used.", "purpose")
	descWrappingMade = desc("wrapping_key_created_timestamp_seconds", "When the current wrapping key of a purpose was made.", "purpose")
	descWrappingDue  = desc("wrapping_key_due", "1 if the current wrapping key of a purpose must be replaced (wrapping_keys.max_age, max_uses), else 0.", "purpose")

	descSurveyAt     = desc("survey_timestamp_seconds", "When the store was asked for what the metrics of key packages say.")
	descSurveyTook   = desc("survey_duration_seconds", "How long the store took to answer that.")
	descSurveyFailed = desc("survey_failures_total", "How often the store could not be asked.")

	descTokenInfo    = desc("token_info", "1, with what the token says of itself.", "label", "manufacturer", "model", "firmware")
	descTokenUsable  = desc("token_usable", "1 while there are sessions and a login, 0 while there are none or nothing is done with the token any more.")
	descSessions     = desc("token_sessions", "Sessions of the token, by whether an operation has them.", "state")
	descSessionLimit = desc("token_sessions_limit", "How many operations may run in the token at once.")
	descWaiting      = desc("token_operations_waiting", "Operations that wait for a session.")
	descInFlight     = desc("requests_in_flight", "Requests of the API that are worked on.")
	descRequestLimit = desc("requests_limit", "How many requests may run at once (server.limits.concurrent).")
)

// states is the collector of these metrics.
type states struct{ o *Observer }

// Describe implements prometheus.Collector.
func (s *states) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descReady, descIdentities, descKeyPackages, descExpiring, descFirstExpiry, descPoolLevel, descPoolLow, descCertificate, descStored,
		descWrappingKeys, descWrappingUses, descWrappingMade, descWrappingDue, descSurveyAt, descSurveyTook, descSurveyFailed,
		descTokenInfo, descTokenUsable, descSessions, descSessionLimit, descWaiting, descInFlight, descRequestLimit,
	} {
		to <- d
	}
}

// gauges sends values of gauges.
type gauges chan<- prometheus.Metric

// set sends a value. It replaces what is not UTF-8 in labels, as tokens may report any bytes.
func (g gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	g <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (g gauges) time(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		g.set(d, float64(t.Unix()), labels...)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector. Its context is its own, because Prometheus passes none.
func (s *states) Collect(to chan<- prometheus.Metric) {
	ctx, g := context.Background(), gauges(to)
	g.set(descReady, truth(s.o.ready.get(ctx).err == nil))
	s.token(g)
	now, limit := s.o.Busy()
	g.set(descInFlight, float64(now))
	g.set(descRequestLimit, float64(limit))
	made := s.o.survey.get(ctx)
	to <- prometheus.MustNewConstMetric(descSurveyFailed, prometheus.CounterValue, float64(made.failed))
	v := made.value
	if v == nil {
		return // no survey yet
	}
	g.time(descSurveyAt, v.At)
	g.set(descSurveyTook, v.Took.Seconds())
	for _, state := range store.States {
		g.set(descStored, float64(v.Stored[state]), string(state))
	}
	s.keys(g, v)
	s.identities(g, v)
}

func (s *states) token(g gauges) {
	u, i := s.o.Token.Usage(), s.o.Token.Info()
	g.set(descTokenInfo, 1, i.Label, i.Manufacturer, i.Model, i.FirmwareVersion)
	g.set(descTokenUsable, truth(u.Open))
	g.set(descSessions, float64(u.InUse), "in_use")
	g.set(descSessions, float64(u.Idle), "idle")
	g.set(descSessionLimit, float64(u.Limit))
	g.set(descWaiting, float64(u.Waiting))
}

// keyStatus returns the status of a wrapping key; it is empty if the key is destroyed.
func keyStatus(k *store.WrappingKey) string {
	switch {
	case !k.DestroyedAt.IsZero():
		return ""
	case k.Condemned:
		return "condemned"
	case k.Current:
		return "current"
	}
	return "superseded"
}

func (s *states) keys(g gauges, v *survey) {
	for _, p := range store.Purposes {
		count := map[string]int{"current": 0, "superseded": 0, "condemned": 0}
		for i := range v.Keys {
			k := &v.Keys[i]
			status := keyStatus(k)
			if k.Purpose != p || status == "" {
				continue
			}
			count[status]++
			if status == "current" {
				g.set(descWrappingUses, float64(k.Uses), string(p))
				g.time(descWrappingMade, k.CreatedAt, string(p))
				g.set(descWrappingDue, truth(s.o.Schedule.Due(k, s.o.Now())), string(p))
			}
		}
		for status, n := range count {
			g.set(descWrappingKeys, float64(n), string(p), status)
		}
	}
}

// series is the metrics of the key packages under one label: of one identity, or of several.
type series struct {
	counts   map[[4]string]uint64 // by labels
	expiring map[[3]string]uint64
	first    map[[2]string]time.Time
}

func newSeries() *series {
	return &series{make(map[[4]string]uint64), make(map[[3]string]uint64), make(map[[2]string]time.Time)}
}

// add adds an identity under a label. Available and published have a value even if it is 0.
func (s *series) add(label string, i *identity) {
	suite := ciphersuite.ID(i.Suite).String()
	for _, state := range []store.State{store.Pending, store.Available, store.Published} {
		s.counts[[4]string{label, suite, string(state), "false"}] += 0
	}
	for _, h := range horizons {
		s.expiring[[3]string{label, suite, h.name}] += 0
	}
	for _, p := range i.Pools {
		suite := ciphersuite.ID(p.Suite).String()
		s.counts[[4]string{label, suite, string(p.State), strconv.FormatBool(p.LastResort)}] += p.Count
		if !p.takeable() {
			continue
		}
		for n, h := range horizons {
			s.expiring[[3]string{label, suite, h.name}] += p.expiring[n]
		}
		if at := [2]string{label, suite}; s.first[at].IsZero() || p.FirstEnds.Before(s.first[at]) {
			s.first[at] = p.FirstEnds
		}
	}
}

func (s *series) send(g gauges) {
	for l, n := range s.counts {
		g.set(descKeyPackages, float64(n), l[:]...)
	}
	for l, n := range s.expiring {
		g.set(descExpiring, float64(n), l[:]...)
	}
	for l, at := range s.first {
		g.time(descFirstExpiry, at, l[:]...)
	}
}

// identities sends the metrics of identities: one by one for the first by name, as one for the
// rest.
func (s *states) identities(g gauges, v *survey) {
	standing := map[string]int{"empty": 0, "low": 0, "filled": 0}
	all := newSeries()
	var certificate time.Time // the earliest of the others
	for n := range v.Identities {
		i := &v.Identities[n]
		standing[i.poolState()]++
		if n >= s.o.Identities {
			all.add(others, i)
			if !i.CertificateEnds.IsZero() && (certificate.IsZero() || i.CertificateEnds.Before(certificate)) {
				certificate = i.CertificateEnds
			}
			continue
		}
		all.add(i.Name, i)
		g.set(descPoolLevel, float64(i.Level), i.Name)
		g.set(descPoolLow, float64(i.Low), i.Name)
		g.time(descCertificate, i.CertificateEnds, i.Name)
	}
	all.send(g)
	g.time(descCertificate, certificate, others)
	for pool, n := range standing {
		g.set(descIdentities, float64(n), pool)
	}
}
