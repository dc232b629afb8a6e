package observe

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// endings is a chart of when lifetimes end: a column for each day, and one for all later days.
type endings struct {
	Columns []column
	Lines   []axisMark // of the axis of counts
	Dates   []axisMark
	Weeks   []week // the same as text
	Within  []within
	Total   uint64
	first   time.Time // zero if nothing ends
	From    time.Time
}

// column is one day of the chart.
type column struct {
	Segments []segment
	Says     string
}

// axisMark is a line or a text at an axis.
type axisMark struct {
	At   float64
	Text string
	End  bool // the text ends at the mark
}

// week is a row of the table.
type week struct {
	From                 time.Time
	Later                bool
	Available, Published uint64
}

// within is how many lifetimes end within a span of time.
type within struct {
	Text  string
	Count uint64
}

// Sizes of the chart, as the template has them: the plot begins at plotX, and its columns stand on
// plotY.
const (
	plotX, plotY  = 48.0, 190.0
	plotHigh      = 170.0
	columnWide    = 9.0
	columnStep    = 11.0
	laterDistance = 14.0
)

// counts is how many lifetimes end in a day, by state.
type counts struct{ available, published uint64 }

func (c *counts) add(state store.State, n uint64) {
	if state == store.Available {
		c.available += n
	} else {
		c.published += n
	}
}

func (c *counts) sum() uint64 { return c.available + c.published }

func endingsOf(v *survey) endings {
	var by [days + 1]counts
	for _, e := range v.Endings {
		by[e.Span].add(e.State, e.Count)
	}
	e := endings{From: v.At}
	var most uint64
	for d := range by {
		most = max(most, by[d].sum())
		e.Total += by[d].sum()
	}
	for i := range v.Identities {
		if at := v.Identities[i].firstEnds(); e.first.IsZero() || !at.IsZero() && at.Before(e.first) {
			e.first = at
		}
	}
	top := niceTop(most)
	for d := range by {
		if by[d].sum() > 0 {
			e.Columns = append(e.Columns, columnOf(&by[d], d, top, v.At))
		}
	}
	for i := range 5 {
		n := top * uint64(i) / 4
		e.Lines = append(e.Lines, axisMark{At: round(plotY - plotHigh*float64(n)/float64(top)), Text: count(n)})
	}
	for d := 0; d < days; d += 14 {
		e.Dates = append(e.Dates, axisMark{At: columnX(d), Text: v.At.Add(time.Duration(d) * day).UTC().Format("2 Jan")})
	}
	e.Dates = append(e.Dates, axisMark{At: columnX(days) + columnWide, Text: "later", End: true})
	e.Weeks, e.Within = weeksOf(by[:], v.At), withinOf(by[:])
	return e
}

func columnX(d int) float64 {
	x := plotX + 4 + columnStep*float64(d)
	if d == days {
		x += laterDistance
	}
	return round(x)
}

func columnOf(c *counts, d int, top uint64, from time.Time) column {
	out := column{Says: from.Add(time.Duration(d)*day).UTC().Format("2 Jan 2006") + ": "}
	if d == days {
		out.Says = "Later: "
	}
	y := plotY
	var says []string
	for _, part := range []segment{{Kind: "published", Count: c.published}, {Kind: "available", Count: c.available}} {
		if part.Count == 0 {
			continue
		}
		high := math.Max(plotHigh*float64(part.Count)/float64(top), 1)
		y -= high
		part.X, part.At, part.Wide, part.High = columnX(d), round(y), columnWide, round(high)
		out.Segments = append(out.Segments, part)
		says = append(says, count(part.Count)+" "+part.Kind)
	}
	out.Says += strings.Join(says, ", ")
	return out
}

// axisSteps are the steps of an axis, in tenths.
var axisSteps = []uint64{10, 15, 20, 25, 30, 40, 50, 60, 80}

// niceTop returns the top of an axis of four whole steps that has room for n.
func niceTop(n uint64) uint64 {
	for power := uint64(1); ; power *= 10 {
		for _, s := range axisSteps {
			if step := s * power / 10; s*power%10 == 0 && 4*step >= n {
				return 4 * step
			}
		}
	}
}

func weeksOf(by []counts, from time.Time) (out []week) {
	for d := 0; d < days; d += 7 {
		w := week{From: from.Add(time.Duration(d) * day)}
		for _, c := range by[d : d+7] {
			w.Available += c.available
			w.Published += c.published
		}
		out = append(out, w)
	}
	return append(out, week{Later: true, Available: by[days].available, Published: by[days].published})
}

func withinOf(by []counts) (out []within) {
	for _, h := range horizons {
		w := within{Text: fmt.Sprintf("%d days", h.within/day)}
		if h.within == day {
			w.Text = "a day"
		}
		for _, c := range by[:h.within/day] {
			w.Count += c.sum()
		}
		out = append(out, w)
	}
	return out
}

func (e *endings) tile(now time.Time) tile {
	t := tile{Label: "Next to end", Value: "–", Note: "nothing to take is there"}
	if e.first.IsZero() {
		return t
	}
	t.Value, t.Note = until(now, e.first), fmt.Sprintf("%s end within 7 days", count(e.Within[1].Count))
	if e.first.Sub(now) < day {
		t.Tone = "low"
	}
	return t
}

// span is a range of times as a picture, on a logarithmic scale from spanLow to spanHigh that is
// spanWidth wide.
type span struct{ From, To float64 }

const (
	spanWidth = 120.0
	spanLow   = 10 * time.Microsecond
	spanHigh  = 10 * time.Second
)

func spanOf(from, to time.Duration) span {
	at := func(d time.Duration) float64 {
		d = min(max(d, spanLow), spanHigh)
		return round(spanWidth * math.Log10(float64(d)/float64(spanLow)) / math.Log10(float64(spanHigh)/float64(spanLow)))
	}
	return span{at(from), at(to)}
}
