package audit_test

import (
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// An entry says which key package it is about, and the store must find it there.
func TestAnEntryThatIsFoundElsewhere(t *testing.T) {
	about := func(e *audit.Entry) {
		if e.Sequence > 0 {
			e.Ref = []byte{byte(e.Sequence)}
		}
	}
	for name, c := range map[string]struct {
		at   int
		ref  []byte
		want error
	}{
		"where it is":                {2, []byte{2}, nil},
		"the store does not say":     {2, nil, nil},
		"under another":              {2, []byte{3}, audit.ErrTampered},
		"under none":                 {2, []byte{}, audit.ErrTampered},
		"under none, and about none": {0, []byte{}, nil},
		"about none, and under one":  {0, []byte{1}, audit.ErrTampered},
	} {
		all := newTrail(5, about)
		all[c.at].Ref = c.ref
		result, err := audit.Verify(all.all(), nil)
		if !errors.Is(err, c.want) || err != nil && result.Entries != uint64(c.at) {
			t.Errorf("%s: Verify() = %+v, %v, want %v", name, result, err, c.want)
		}
	}
}
