package observe

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// levels are the pools of identities as the page shows them, lowest first.
type levels struct {
	Rows                      []levelRow
	Identities, Short         int    // all identities, and those that are empty or low
	More                      uint64 // identities without a row
	MoreLeast                 uint64 // the lowest level of those
	MoreShort                 int    // how many of those are empty or low
	anyCertificate, anyEnding bool
}

// levelRow is the pool of one identity.
type levelRow struct {
	Name, Suite, SuiteName string
	State                  string // filled, low or empty
	Level, Low             uint64
	FirstEnds              time.Time // zero if no lifetime ends
	CertificateEnds        time.Time // zero if it has no certificate
	Bar                    bar
}

// bar is a picture of a level, barWidth wide.
type bar struct {
	Segments []segment
	Mark     float64 // position of the low mark; negative if there is none
	Says     string
}

// segment is a part of a bar, or of a column.
type segment struct {
	Kind          string // the class of its colour
	At, Size      float64
	Count         uint64
	X, Wide, High float64 // of columns
}

const barWidth = 240

// standings are the states of a pool, worst first.
var standings = []string{"empty", "low", "filled"}

func levelsOf(v *survey, now time.Time) levels {
	order := make([]*identity, len(v.Identities))
	for n := range v.Identities {
		order[n] = &v.Identities[n]
	}
	slices.SortStableFunc(order, func(a, b *identity) int {
		return cmp.Or(cmp.Compare(slices.Index(standings, a.poolState()), slices.Index(standings, b.poolState())), cmp.Compare(a.Level, b.Level))
	})
	l := levels{Identities: len(order)}
	shown := order[:min(len(order), maxRows)]
	var most uint64 // the scale that all bars share
	for _, i := range shown {
		most = max(most, i.of(store.Pending)+i.of(store.Available)+i.of(store.Published), i.Low)
	}
	for _, i := range shown {
		l.Rows = append(l.Rows, rowOf(i, most))
		l.anyCertificate = l.anyCertificate || !i.CertificateEnds.IsZero()
		l.anyEnding = l.anyEnding || i.soon() > 0
	}
	l.More, l.MoreLeast = uint64(len(order)-len(shown)), math.MaxUint64
	for n, i := range order {
		short := i.poolState() != "filled"
		if short {
			l.Short++
		}
		if n >= len(shown) {
			l.MoreLeast = min(l.MoreLeast, i.Level)
			if short {
				l.MoreShort++
			}
		}
	}
	return l
}

// Certificates reports whether one of the rows has a certificate.
func (l *levels) Certificates() bool { return l.anyCertificate }

// Soon reports whether one of the bars has a part that ends soon.
func (l *levels) Soon() bool { return l.anyEnding }

func (l *levels) tile() tile {
	t := tile{Label: "Identities short", Value: fmt.Sprintf("%s of %s", count(uint64(l.Short)), count(uint64(l.Identities))), Note: "empty or low", Tone: "ok"}
	if l.Short > 0 {
		t.Tone = "low"
	}
	if slices.ContainsFunc(l.Rows, func(r levelRow) bool { return r.State == "empty" }) {
		t.Tone = "empty"
	}
	return t
}

// soon returns how many key packages end too soon to count towards the level.
func (i *identity) soon() (n uint64) {
	for _, p := range i.Pools {
		if !p.LastResort && (p.takeable() || p.State == store.Pending) {
			n += p.ending()
		}
	}
	return n
}

// ending returns how many key packages of the pool end too soon to count.
func (p *pool) ending() uint64 { return max(p.Ending[0], p.Ending[1]) }

func rowOf(i *identity, most uint64) levelRow {
	return levelRow{
		Name: i.Name, Suite: shortSuite(i.Suite), SuiteName: ciphersuite.ID(i.Suite).String(), State: i.poolState(), Level: i.Level, Low: i.Low,
		FirstEnds: i.firstEnds(), CertificateEnds: i.CertificateEnds, Bar: barOf(i, most),
	}
}

func barOf(i *identity, most uint64) bar {
	scale := func(n uint64) float64 { return round(barWidth * float64(n) / float64(max(most, 1))) }
	b := bar{Mark: -1}
	var says []string
	at := 0.0
	add := func(kind, what string, n uint64) {
		if n == 0 {
			return
		}
		b.Segments = append(b.Segments, segment{Kind: kind, At: at, Size: scale(n), Count: n})
		at += scale(n)
		says = append(says, count(n)+" "+what)
	}
	for _, state := range []store.State{store.Available, store.Published, store.Pending} {
		var n uint64
		for _, p := range i.Pools {
			if p.State == state && !p.LastResort {
				n += p.Count - p.ending()
			}
		}
		add(string(state), string(state), n)
	}
	add("soon", "about to end", i.soon())
	if i.Low > 0 {
		b.Mark = scale(i.Low)
		says = append(says, "low mark "+count(i.Low))
	}
	b.Says = strings.Join(says, ", ")
	return b
}

// round drops the digits that an SVG does not need.
func round(x float64) float64 { return math.Round(x*100) / 100 }
