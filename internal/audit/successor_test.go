package audit_test

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// seeded returns the key for a letter.
func seeded(letter string) crypto.Signer {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(letter, ed25519.SeedSize)))
}

// succession returns a trail of 12 entries that announces the keys a, b and c at 0, 4 and 8.
func succession(t *testing.T) (trail, map[string]string) {
	t.Helper()
	keys := make(map[string]string)
	for _, letter := range []string{"a", "b", "c"} {
		keys[letter] = verifierKey(t, origin, seeded(letter))
	}
	return newTrail(12, func(e *audit.Entry) {
		if letter, ok := map[uint64]string{0: "a", 4: "b", 8: "c"}[e.Sequence]; ok {
			e.Act, e.Detail = audit.Created, audit.KeyDetail(keys[letter])
		}
	}), keys
}

func TestATrailNamesItsKeys(t *testing.T) {
	all, keys := succession(t)
	got, err := audit.Announcements(all.all())
	if err != nil {
		t.Fatalf("Announcements() err = %v, want nil", err)
	}
	wantEqual(t, "Announcements()", got, []audit.Announcement{{0, keys["a"]}, {4, keys["b"]}, {8, keys["c"]}})
	for name, e := range map[string]audit.Entry{
		"another act":      {Act: audit.Refused, Detail: audit.KeyDetail(keys["a"])},
		"no key":           {Act: audit.Created, Detail: "audit key"},
		"a malformed key":  {Act: audit.Created, Detail: audit.KeyDetail("nonsense")},
		"another kind":     {Act: audit.Created, Detail: "wrapping key, to seal"},
		"text before":      {Act: audit.Created, Detail: " " + audit.KeyDetail(keys["a"])},
		"text after a key": {Act: audit.Created, Detail: audit.KeyDetail(keys["a"]) + " "},
	} {
		if key, ok := e.AnnouncedKey(); ok {
			t.Errorf("AnnouncedKey() of %s = %q, want none", name, key)
		}
	}
	broken := errors.New("broken")
	_, err = audit.Announcements(iter.Seq2[audit.Stored, error](func(yield func(audit.Stored, error) bool) { yield(audit.Stored{}, broken) }))
	if !errors.Is(err, broken) {
		t.Errorf("Announcements() err = %v, want %v", err, broken)
	}
}

// A key is trusted if a trusted key has signed its announcement, and the note with that signature
// may be anywhere among the notes.
func TestAKeyIsBelievedByTheOneBefore(t *testing.T) {
	all, keys := succession(t)
	announced, err := audit.Announcements(all.all())
	if err != nil {
		t.Fatal(err)
	}
	note := func(letter string, size int) []byte { return sign(t, all.checkpoint(size), seeded(letter)) }
	for name, c := range map[string]struct {
		notes   [][]byte
		believe []string
		want    []bool
	}{
		"each hands over":              {[][]byte{note("a", 5), note("b", 9), note("c", 12)}, []string{"a"}, []bool{true, true, true}},
		"in any order":                 {[][]byte{note("c", 12), note("b", 9), note("a", 5)}, []string{"a"}, []bool{true, true, true}},
		"one names two":                {[][]byte{note("c", 12), note("a", 9)}, []string{"a"}, []bool{true, true}},
		"the entry is not under it":    {[][]byte{note("a", 4), note("b", 9)}, []string{"a"}, []bool{true, false}},
		"a gap":                        {[][]byte{note("a", 5), note("b", 8), note("c", 12)}, []string{"a"}, []bool{true, true, false}},
		"the later does not vouch":     {[][]byte{note("a", 5), note("b", 12)}, []string{"b"}, []bool{false, true}},
		"another that nobody named":    {[][]byte{note("a", 12), note("d", 12)}, []string{"a"}, []bool{true, false}},
		"believed without being named": {[][]byte{note("d", 12), note("c", 12)}, []string{"d"}, []bool{true, true}},
		"itself":                       {[][]byte{note("b", 12)}, []string{"a"}, []bool{false}},
		"nobody is believed":           {[][]byte{note("a", 12)}, nil, []bool{false}},
		"nothing to open":              {nil, []string{"a"}, []bool{}},
	} {
		var believe []string
		for _, letter := range c.believe {
			believe = append(believe, verifierKey(t, origin, seeded(letter)))
		}
		opened := audit.OpenAll(c.notes, believe, announced)
		got := make([]bool, len(opened))
		for i := range opened {
			got[i] = opened[i] != nil
		}
		wantEqual(t, name, got, c.want)
	}
	if opened := audit.OpenAll([][]byte{note("a", 5), note("b", 9)}, []string{keys["a"]}, nil); opened[0] == nil || opened[1] != nil {
		t.Errorf("OpenAll() without announcements = %v, want the first alone", opened)
	}
}
