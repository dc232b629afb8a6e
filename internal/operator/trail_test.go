package operator

import (
	"errors"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/vault"
)

// trail returns what a request shows.
func (f *fixture) trail(t *testing.T, r TrailRequest) (entries []TrailEntry) {
	t.Helper()
	r.Each = func(e TrailEntry) error {
		entries = append(entries, e)
		return nil
	}
	if err := f.Trail(t.Context(), r); err != nil {
		t.Errorf("Trail(%+v) err = %v, want nil", r, err)
	}
	return entries
}

func TestTrailShowsWhatIsAskedFor(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		ref := f.stock(t, "alice", vault.CustodyWrapped, 3)[1]
		f.wantOpens(t, ref, nil) // reserved, opened, released
		all := f.trail(t, TrailRequest{})
		// Two wrapping keys, an identity, three key packages, and the Welcome.
		if len(all) != 9 {
			t.Fatalf("Trail() = %d entries, want 9", len(all))
		}
		for name, test := range map[string]struct {
			request TrailRequest
			want    []audit.Act
		}{
			"of an act":                         {TrailRequest{Acts: []audit.Act{audit.Generated}}, []audit.Act{audit.Generated, audit.Generated, audit.Generated}},
			"of two acts":                       {TrailRequest{Acts: []audit.Act{audit.Released, audit.Reserved}}, []audit.Act{audit.Reserved, audit.Released}},
			"of a key package":                  {TrailRequest{KeyPackage: ref.String()[:16]}, []audit.Act{audit.Generated, audit.Reserved, audit.Opened, audit.Released}},
			"of a key package and an act":       {TrailRequest{KeyPackage: ref.String(), Acts: []audit.Act{audit.Opened}}, []audit.Act{audit.Opened}},
			"of a key package from an entry":    {TrailRequest{KeyPackage: ref.String(), From: 7}, []audit.Act{audit.Opened, audit.Released}},
			"from an entry, limited":            {TrailRequest{From: 7, Limit: 1}, []audit.Act{audit.Opened}},
			"of an act, limited":                {TrailRequest{Acts: []audit.Act{audit.Created}, Limit: 2}, []audit.Act{audit.Created, audit.Created}},
			"of an act that did not come about": {TrailRequest{Acts: []audit.Act{audit.Destroyed}}, nil},
			"from after the end":                {TrailRequest{From: 9}, nil},
		} {
			var got []audit.Act
			for _, e := range f.trail(t, test.request) {
				got = append(got, e.Act)
				if all[e.Sequence].Hash != e.Hash {
					t.Errorf("%s: entry %d has another hash than before", name, e.Sequence)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%s: Trail() = %v, want %v", name, got, test.want)
			}
		}
	})
}

func TestTrailRefusesWhatNobodyCanShow(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		request := (*act.RequestError)(nil)
		if err := f.Trail(t.Context(), TrailRequest{Acts: []audit.Act{"stolen"}}); !errors.As(err, &request) {
			t.Errorf("Trail() of an unknown act err = %v, want a RequestError", err)
		}
		if err := f.Trail(t.Context(), TrailRequest{KeyPackage: "no digits"}); !errors.Is(err, inventory.ErrRef) {
			t.Errorf("Trail() of no reference err = %v, want %v", err, inventory.ErrRef)
		}
		enough := errors.New("enough")
		if err := f.Trail(t.Context(), TrailRequest{Each: func(TrailEntry) error { return enough }}); !errors.Is(err, enough) {
			t.Errorf("Trail() err = %v, want that of Each", err)
		}
	})
}
