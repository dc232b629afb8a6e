package observe

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
)

//go:embed status.html.tmpl
var pageText string

//go:embed status.css
var pageStyle string

var pageTemplate = template.Must(template.New("status").Funcs(template.FuncMap{
	"count": count, "date": date, "clock": clock, "took": took, "until": until,
}).Parse(pageText))

const (
	// refreshEvery is how often a browser reloads the page, in seconds.
	refreshEvery = 30
	// maxRows is how many identities the page shows, lowest first.
	maxRows = 40
)

// Status serves the page. It has no scripts and loads nothing; the browser accepts its one style by
// its hash.
func (o *Observer) Status() http.Handler {
	hash := sha256.Sum256([]byte(pageStyle))
	policy := fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'", base64.StdEncoding.EncodeToString(hash[:]))
	return guardedBy(policy, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, paused := r.URL.Query()["pause"]
		p := o.page(r)
		if !paused {
			p.Refresh = refreshEvery
		}
		var b bytes.Buffer
		if err := pageTemplate.Execute(&b, p); err != nil {
			say(w, http.StatusInternalServerError, "the page could not be rendered\n")
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD"))) // it fails only if the client has gone
	}))
}

// page is the data of the template.
type page struct {
	Style   template.CSS
	Version string
	Refresh int // seconds; 0 for none

	Now     time.Time
	Begun   time.Time
	Ready   bool
	Survey  *survey // nil until the store has answered
	Stale   bool    // the store did not answer lately
	Tiles   []tile
	Levels  levels
	Endings endings
	Stored  []stored
	Keys    []keyRow

	Info       token.Info
	Usage      token.Usage
	Minutes    int
	Calls      []callRow
	Faults     []fault
	Recoveries bool
	Requests   []callRow
	Refusals   []refusalRow
	Busy, Most int
}

// tile is a figure at the top.
type tile struct {
	Label, Value, Note string
	Tone               string // ok, low, empty, or none
}

// stored is the number of key packages in a state.
type stored struct {
	State store.State
	Count uint64
}

// keyRow is a wrapping key. The page does not name it.
type keyRow struct {
	Purpose store.Purpose
	Status  string
	Made    time.Time
	Uses    uint64
	Due     bool
	Ends    time.Time // when its age makes it due; zero for never
}

// callRow summarizes recent calls of one name.
type callRow struct {
	Name      string
	N, Failed uint64
	P50, P99  time.Duration
	Span      span
}

// refusalRow summarizes recent refusals of one kind.
type refusalRow struct {
	Operation, Reason string
	N                 uint64
}

func (o *Observer) page(r *http.Request) *page {
	now := o.Now().UTC()
	p := &page{
		Style: template.CSS(pageStyle), Version: o.Version, Now: now, Begun: o.begun, Ready: o.Ready(r.Context()) == nil,
		Info: o.Token.Info(), Usage: o.Token.Usage(), Minutes: windowMinutes, Faults: o.Events.faults.list(),
	}
	p.Busy, p.Most = o.Busy()
	made := o.survey.get(r.Context())
	p.Survey, p.Stale = made.value, made.err != nil
	calls, requests := o.Events.lastCalls.sum(now), o.Events.lastRequests.sum(now)
	p.Calls, p.Requests = rowsOf(calls), rowsOf(requests)
	for _, t := range o.Events.lastRefusals.sum(now) {
		op, reason, _ := strings.Cut(t.Name, " ")
		p.Refusals = append(p.Refusals, refusalRow{op, strings.ReplaceAll(reason, "_", " "), t.N})
	}
	if p.Survey != nil {
		p.Levels, p.Endings = levelsOf(p.Survey, now), endingsOf(p.Survey)
		for _, state := range store.States {
			p.Stored = append(p.Stored, stored{state, p.Survey.Stored[state]})
		}
		p.Keys = o.keyRows(p.Survey.Keys)
	}
	p.Tiles = p.tiles(total(calls))
	return p
}

// rowsOf returns a row for each tally, slowest first.
func rowsOf(of []*tally) []callRow {
	var out []callRow
	for _, t := range of {
		r := callRow{Name: t.Name, N: t.N, Failed: t.Failed, P50: t.quantile(0.5), P99: t.quantile(0.99)}
		r.Span = spanOf(r.P50, r.P99)
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b callRow) int { return cmp.Compare(b.P99, a.P99) })
	return out
}

func (o *Observer) keyRows(keys []store.WrappingKey) (out []keyRow) {
	for i := range keys {
		k := &keys[i]
		status := keyStatus(k)
		if status == "" {
			continue
		}
		r := keyRow{Purpose: k.Purpose, Status: status, Made: k.CreatedAt, Uses: k.Uses}
		if k.Current {
			r.Due = o.Schedule.Due(k, o.Now())
			if o.Schedule.MaxAge > 0 {
				r.Ends = k.CreatedAt.Add(o.Schedule.MaxAge)
			}
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b keyRow) int {
		return cmp.Or(strings.Compare(a.Status, b.Status), strings.Compare(string(a.Purpose), string(b.Purpose)))
	})
	return out
}

// tiles returns the figures at the top.
func (p *page) tiles(calls *tally) []tile {
	var out []tile
	if v := p.Survey; v != nil {
		out = append(out,
			tile{Label: "Available", Value: count(v.Stored[store.Available]), Note: count(v.Stored[store.Published]) + " more published"},
			p.Levels.tile(),
			p.Endings.tile(p.Now),
		)
	}
	session := tile{Label: "Token sessions", Value: fmt.Sprintf("%d of %d", p.Usage.InUse, p.Usage.Limit), Note: "in use"}
	switch {
	case !p.Usage.Open:
		session.Note, session.Tone = "none open", "empty"
	case p.Usage.Waiting > 0:
		session.Note = fmt.Sprintf("in use, %s waiting", count(uint64(p.Usage.Waiting)))
		session.Tone = "low"
	}
	latency := tile{Label: "Token calls", Value: "–", Note: fmt.Sprintf("none in %d min", windowMinutes)}
	if calls.N > 0 {
		latency.Value, latency.Note = took(calls.quantile(0.99)), fmt.Sprintf("p99 of %s in %d min", count(calls.N), windowMinutes)
	}
	if calls.Failed > 0 {
		latency.Note, latency.Tone = fmt.Sprintf("p99; %s of %s failed", count(calls.Failed), count(calls.N)), "low"
	}
	return append(out, session, latency)
}

// shortSuite returns the number of a suite and its signature scheme.
func shortSuite(id uint16) string {
	name := ciphersuite.ID(id).String()
	if _, after, found := strings.Cut(name, "MLS_"); found {
		return fmt.Sprintf("%d · %s", id, after[strings.LastIndexByte(after, '_')+1:])
	}
	return name
}
