package server

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
)

// trail returns a store, and a function that returns the refusals in it.
func trail(t *testing.T) (*sqlite.Store, func() []audit.Entry) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), sqlite.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, func() (out []audit.Entry) {
		for stored, err := range s.Entries(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			e, err := audit.ParseEntry(stored.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		}
		return out
	}
}

func TestAFloodOfRefusalsIsCounted(t *testing.T) {
	s, entries := trail(t)
	r := &refusals{record: s.Record, kinds: make(map[refusal]*refused)}
	now := time.Unix(1_800_000_000, 0)
	kind := refusal{actor: "uri:a", what: "claim", why: "not granted"}
	for range 1000 {
		if err := r.add(t.Context(), kind, now); err != nil {
			t.Fatal(err)
		}
	}
	if got := entries(); len(got) != 1 || got[0].Actor != "uri:a" || got[0].Act != audit.Refused {
		t.Fatalf("the trail has %v, want one refusal of uri:a", got)
	}
	if err := r.add(t.Context(), kind, now.Add(refusalEvery)); err != nil {
		t.Fatal(err)
	}
	if got := entries(); len(got) != 2 || !strings.Contains(got[1].Detail, "999 more") {
		t.Errorf("the trail has %v, want the other 999 counted", got)
	}
}

func TestKindsOfRefusalsAreBounded(t *testing.T) {
	s, entries := trail(t)
	r := &refusals{record: s.Record, kinds: make(map[refusal]*refused)}
	now := time.Unix(1_800_000_000, 0)
	const extra = 50
	for i := range maxRefusalKinds + extra {
		if err := r.add(t.Context(), refusal{actor: fmt.Sprint(i), what: "list"}, now); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(entries()); got != maxRefusalKinds+1 {
		t.Errorf("the trail has %d entries, want %d", got, maxRefusalKinds+1)
	}
	if err := r.flush(t.Context(), now.Add(refusalEvery), false); err != nil {
		t.Fatal(err)
	}
	if len(r.kinds) != 0 {
		t.Errorf("%d kinds are left after a quiet minute", len(r.kinds))
	}
	if got := entries(); len(got) != maxRefusalKinds+2 || !strings.Contains(got[len(got)-1].Detail, fmt.Sprint(extra-2)) {
		t.Errorf("the last entry is %v, want the %d that were not said", got[len(got)-1], extra-2)
	}
}
