package act

import (
	"regexp"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

func TestNames(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := make(map[Act]bool)
	for _, i := range All {
		if !form.MatchString(string(i.Act)) || seen[i.Act] {
			t.Errorf("%q is malformed, or there twice", i.Act)
		}
		seen[i.Act] = true
		if got, ok := Lookup(i.Act); !ok || got.Act != i.Act {
			t.Errorf("Lookup(%q) = %v, %v", i.Act, got.Act, ok)
		}
	}
	if _, ok := Lookup("anything"); ok {
		t.Error(`Lookup("anything") finds something`)
	}
}

// Each entry of the trail comes from some act. Any act can be refused.
func TestEveryEntryComesFromAnAct(t *testing.T) {
	var entries []audit.Act
	for _, i := range All {
		entries = append(entries, i.Entries...)
	}
	for _, e := range audit.Acts {
		if e != audit.Refused && !slices.Contains(entries, e) {
			t.Errorf("no act has the entry %q", e)
		}
	}
	for _, e := range entries {
		if !slices.Contains(audit.Acts, e) {
			t.Errorf("an act has the entry %q, which the trail does not know", e)
		}
	}
}

func TestPagesAreGrantedForEverybody(t *testing.T) {
	for _, i := range All {
		if want := i.Act == Metrics || i.Act == Status; i.Everybody != want {
			t.Errorf("%q shows everybody: %v, want %v", i.Act, i.Everybody, want)
		}
	}
	if want := []string{"generate", "list", "get", "claim", "publish", "open_welcome", "confirm_welcome", "release_welcome", "sign_with_label", "decrypt_with_label", "metrics", "status"}; !slices.Equal(Granted(), want) {
		t.Errorf("Granted() = %v, want %v", Granted(), want)
	}
}
