package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Surveys: the key packages of all identities, in one call.

const day = 24 * time.Hour

// surveyed adds key packages of alice and bob that end at several times, some in each state.
func surveyed(t *testing.T, f *fixture) {
	t.Helper()
	furnish(t, f)
	check(t, "AddIdentity", f.AddIdentity(t.Context(), identity("bob")), nil)
	check(t, "AddIdentity", f.AddIdentity(t.Context(), identity("Äike")), nil)
	b := batch(0, 9)
	b[0].NotAfter, b[1].NotAfter, b[2].NotAfter = made.Add(-day), made.Add(day-time.Second), made.Add(day)
	b[3].LastResort = true
	b[4].Suite = 1
	b[5].Version = 2 // of a version that is not there yet
	for i := 6; i < 9; i++ {
		b[i].Identity = []string{"bob", "Äike"}[i%2]
		b[i].NotAfter = made.Add(time.Duration(i) * 10 * day)
	}
	b[8].State, b[8].PublishedAt = store.Published, made
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
}

func pools(t *testing.T, f *fixture) {
	surveyed(t, f)
	pools := func(want ...string) {
		t.Helper()
		got, err := f.again().Pools(t.Context(), made, made.Add(day), made.Add(70*day))
		check(t, "Pools", err, nil)
		var lines []string
		for _, p := range got {
			lines = append(lines, fmt.Sprintf("%s %d %s %v: %d, first %d, ending %v", p.Identity, p.Suite, p.State, p.LastResort, p.Count, p.FirstEnds.Sub(made)/time.Second, p.Ending))
		}
		if fmt.Sprintf("%q", lines) != fmt.Sprintf("%q", want) {
			t.Errorf("Pools() =\n%q, want\n%q", lines, want)
		}
	}
	resort := "alice 2 available true: 1, first 7257600, ending [0 0 0]"
	bobs := []string{"bob 2 available false: 1, first 5184000, ending [0 0 1]", "bob 2 published false: 1, first 6912000, ending [0 0 0]"}
	eike := "Äike 2 available false: 1, first 6048000, ending [0 0 0]"
	suite := "alice 1 available false: 1, first 7257600, ending [0 0 0]"
	pools(suite, "alice 2 available false: 3, first -86400, ending [1 2 3]", resort, bobs[0], bobs[1], eike)

	// One is claimed, one is used up, and the lifetime of one is over.
	_, err := f.Claim(t.Context(), "alice", 1, made)
	check(t, "Claim", err, nil)
	check(t, "Reserve", reserve(t, f, ref(2), []byte("w"), nil), nil)
	check(t, "Consume", f.Consume(t.Context(), ref(2), []byte("w"), made), nil)
	_, err = f.Sweep(t.Context(), made, day)
	check(t, "Sweep", err, nil)
	claimed, expired := "alice 2 claimed false: 1, first 86399, ending [0 1 1]", "alice 2 expired false: 1, first -86400, ending [1 1 1]"
	pools(suite, resort, claimed, expired, bobs[0], bobs[1], eike)

	// A backlog counts from its beginning.
	_, err = f.RetireIdentity(t.Context(), "bob", made.Add(day), made)
	check(t, "RetireIdentity", err, nil)
	pools(suite, resort, claimed, expired, "bob 2 retired false: 2, first 5184000, ending [0 0 1]", eike)
}

func endings(t *testing.T, f *fixture) {
	endings := func(want string, n int) {
		t.Helper()
		got, err := f.Endings(t.Context(), made, day, n)
		check(t, "Endings", err, nil)
		if s := fmt.Sprint(got); s != want {
			t.Errorf("Endings() = %s, want %s", s, want)
		}
	}
	endings("[]", 7)
	surveyed(t, f)
	endings("[{available 0 1} {available 1 1} {available 60 1} {available 70 1} {available 84 3} {published 80 1}]", 100)
	endings("[{available 0 1} {available 1 1} {available 6 5} {published 6 1}]", 7)
	check(t, "Reserve", reserve(t, f, ref(1), []byte("w"), nil), nil)
	_, err := f.RetireIdentity(t.Context(), "bob", made.Add(day), made)
	check(t, "RetireIdentity", err, nil)
	endings("[{available 1 1} {available 6 4}]", 7)
}
