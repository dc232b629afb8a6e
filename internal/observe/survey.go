package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Store is what a survey reads from.
type Store interface {
	Identities(ctx context.Context) ([]store.Identity, error)
	WrappingKeys(ctx context.Context) ([]store.WrappingKey, error)
	Count(ctx context.Context, name string) (map[store.State]uint64, error)
	store.Surveys
}

const (
	day = 24 * time.Hour
	// days is how many days of the chart of endings have a column of their own.
	days = 84
)

// horizons are the spans of time that "expiring" refers to.
var horizons = []struct {
	name   string
	within time.Duration
}{{"1d", day}, {"7d", 7 * day}, {"30d", 30 * day}}

// survey is the content of the store at one time. It is immutable.
type survey struct {
	At         time.Time
	Took       time.Duration
	Identities []identity // by name
	Stored     map[store.State]uint64
	Endings    []store.Ending // by day from At
	Keys       []store.WrappingKey
}

// identity is one that is not retired, with its counts.
type identity struct {
	Name  string
	Suite uint16
	Pools []pool
	// Level is how many key packages can be claimed or published or soon can be, without
	// last-resort ones and those that end soon. Low is the mark that Level should not fall below.
	Level, Low      uint64
	CertificateEnds time.Time // zero if it has no certificate
}

// pool is a store.Pool with the number that ends within each of the horizons.
type pool struct {
	store.Pool
	expiring []uint64
}

// takeable reports whether others may take the pool's key packages.
func (p *pool) takeable() bool { return p.State == store.Available || p.State == store.Published }

// of returns how many key packages are in a state, without those of last resort.
func (i *identity) of(state store.State) (n uint64) {
	for _, p := range i.Pools {
		if p.State == state && !p.LastResort {
			n += p.Count
		}
	}
	return n
}

// firstEnds returns when the first lifetime of what others may take ends; zero if there is none.
func (i *identity) firstEnds() (first time.Time) {
	for _, p := range i.Pools {
		if p.takeable() && (first.IsZero() || p.FirstEnds.Before(first)) {
			first = p.FirstEnds
		}
	}
	return first
}

// poolState returns the state of an identity's pool.
func (i *identity) poolState() string {
	switch {
	case i.Level >= i.Low && i.Level > 0:
		return "filled"
	case i.Level == 0 && i.Low > 0:
		return "empty"
	case i.Level < i.Low:
		return "low"
	}
	return "filled" // no low mark is set
}

// surveyor surveys a store. It runs one survey at a time.
type surveyor struct {
	store  Store
	low    func(identity string) int
	ending time.Duration
	now    func() time.Time

	certificates map[string]certified // by identity
}

// certified is when the certificates of a credential end.
type certified struct {
	credential []byte
	ends       time.Time
}

// take takes a survey.
func (s *surveyor) take(ctx context.Context) (*survey, error) {
	v := &survey{At: s.now()}
	identities, err := s.store.Identities(ctx)
	if err != nil {
		return nil, fmt.Errorf("survey identities: %w", err)
	}
	before := []time.Time{v.At, v.At.Add(s.ending)}
	for _, h := range horizons {
		before = append(before, v.At.Add(h.within))
	}
	pools, err := s.store.Pools(ctx, before...)
	if err != nil {
		return nil, fmt.Errorf("survey pools: %w", err)
	}
	var errs [3]error
	v.Endings, errs[0] = s.store.Endings(ctx, v.At, day, days+1)
	v.Stored, errs[1] = s.store.Count(ctx, "")
	v.Keys, errs[2] = s.store.WrappingKeys(ctx)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	}
	v.Identities = s.together(identities, pools)
	v.Took = s.now().Sub(v.At)
	return v, nil
}

// together returns the identities with their pools, ordered by name.
func (s *surveyor) together(identities []store.Identity, pools []store.Pool) []identity {
	own := make(map[string][]store.Pool)
	for _, p := range pools {
		own[p.Identity] = append(own[p.Identity], p)
	}
	out := make([]identity, 0, len(identities))
	for i := range identities {
		if record := &identities[i]; record.RetiredAt.IsZero() {
			out = append(out, s.identity(record, own[record.Name]))
		}
	}
	slices.SortFunc(out, func(a, b identity) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// identity counts what others may take of an identity.
func (s *surveyor) identity(record *store.Identity, own []store.Pool) identity {
	low := uint64(max(s.low(record.Name), 0))
	if record.ForDevice() {
		low = 0 // this program cannot make more
	}
	i := identity{
		Name: record.Name, Suite: record.Suite, Low: low, CertificateEnds: s.certificateEnds(record),
	}
	for _, p := range own {
		one := pool{Pool: p}
		for _, n := range p.Ending[2:] {
			one.expiring = append(one.expiring, n-p.Ending[0])
		}
		i.Pools = append(i.Pools, one)
		if (one.takeable() || p.State == store.Pending) && !p.LastResort {
			i.Level += p.Count - max(p.Ending[0], p.Ending[1])
		}
	}
	return i
}

// certificateEnds returns when the first certificate of an identity ends; zero if it has none. It
// parses a credential again only if it has changed.
func (s *surveyor) certificateEnds(record *store.Identity) time.Time {
	known, ok := s.certificates[record.Name]
	if !ok || !bytes.Equal(known.credential, record.Credential) {
		known = certified{record.Credential, endsOf(record.Credential)}
		s.certificates[record.Name] = known
	}
	return known.ends
}

// endsOf returns when the first certificate of a credential ends, or zero if it does not parse: a
// changed record is found where it is used.
func endsOf(credential []byte) time.Time {
	c, err := keypackage.ParseCredential(credential)
	if err != nil || len(c.Certificates) == 0 {
		return time.Time{}
	}
	chain, err := certificate.Parse(c.Certificates)
	if err != nil || len(chain) == 0 {
		return time.Time{}
	}
	_, ends := chain.Validity()
	return ends
}
