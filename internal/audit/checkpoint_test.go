package audit_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

const root13 = "SwkJdLaRhPYyHh7kyL9D31AVrNM9vfRrLUac9u3TO50="

const frozenCheckpoint = origin + "\n13\n" + root13 + "\n"

func TestCheckpointFormIsFrozen(t *testing.T) {
	c := newTrail(13, nil).checkpoint(13)
	wantEqual(t, "Text()", c.Text(), frozenCheckpoint)
	got, err := audit.ParseCheckpoint(frozenCheckpoint)
	if err != nil {
		t.Fatalf("ParseCheckpoint() err = %v, want nil", err)
	}
	wantEqual(t, "ParseCheckpoint()", got, c)
}

func TestCheckpointsComeBackAsTheyWere(t *testing.T) {
	for _, size := range []uint64{0, 1, 10, math.MaxInt64, math.MaxUint64} {
		want := audit.Checkpoint{Origin: "größe.example/ключ", Size: size, Root: audit.Hash{1}}
		got, err := audit.ParseCheckpoint(want.Text())
		if err != nil {
			t.Errorf("ParseCheckpoint() of size %d err = %v, want nil", size, err)
		}
		wantEqual(t, "ParseCheckpoint()", got, want)
	}
}

func TestAnythingElseIsNoCheckpoint(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                "",
		"no newline":           strings.TrimSuffix(frozenCheckpoint, "\n"),
		"extension":            frozenCheckpoint + "extension\n",
		"empty line":           frozenCheckpoint + "\n",
		"no origin":            "\n13\n" + root13 + "\n",
		"origin with a space":  "a b\n13\n" + root13 + "\n",
		"no size":              origin + "\n\n" + root13 + "\n",
		"leading zero":         origin + "\n013\n" + root13 + "\n",
		"sign":                 origin + "\n+13\n" + root13 + "\n",
		"negative":             origin + "\n-1\n" + root13 + "\n",
		"hexadecimal":          origin + "\n0x13\n" + root13 + "\n",
		"too large":            origin + "\n18446744073709551616\n" + root13 + "\n",
		"carriage return":      strings.ReplaceAll(frozenCheckpoint, "\n", "\r\n"),
		"return in the root":   origin + "\n13\n" + root13[:8] + "\r" + root13[8:] + "\n",
		"bits after the root":  origin + "\n13\n" + strings.Repeat("A", 42) + "B=\n",
		"root not base64":      origin + "\n13\n" + strings.Repeat("!", 44) + "\n",
		"root too short":       origin + "\n13\nAAAA\n",
		"root without padding": origin + "\n13\n" + strings.TrimSuffix(root13, "=") + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := audit.ParseCheckpoint(text); !errors.Is(err, audit.ErrCheckpoint) {
				t.Errorf("ParseCheckpoint() = %v, err = %v, want %v", c, err, audit.ErrCheckpoint)
			}
		})
	}
}

func TestACutCheckpointIsRefused(t *testing.T) {
	for n := range frozenCheckpoint {
		if _, err := audit.ParseCheckpoint(frozenCheckpoint[:n]); !errors.Is(err, audit.ErrCheckpoint) {
			t.Errorf("ParseCheckpoint() of the first %d bytes err = %v, want %v", n, err, audit.ErrCheckpoint)
		}
	}
}

// tlog parses one origin only, and parses the rest in the same way.
func TestTlogReadsCheckpoints(t *testing.T) {
	c := newTrail(13, nil).checkpoint(13)
	c.Origin = "go.sum database tree"
	tree, err := tlog.ParseTree([]byte(c.Text()))
	if err != nil {
		t.Fatalf("ParseTree() err = %v, want nil", err)
	}
	wantEqual(t, "ParseTree()", tree, tlog.Tree{N: 13, Hash: tlog.Hash(c.Root)})
}

func TestOrigins(t *testing.T) {
	for _, good := range []string{origin, "a", "example.com:8080/x?y=z#w", "größe.example", "—"} {
		if err := audit.CheckOrigin(good); err != nil {
			t.Errorf("CheckOrigin(%q) err = %v, want nil", good, err)
		}
	}
	for _, bad := range []string{"", "a b", "a\tb", "a\nb", "a\u00a0b", "a\u2028b", "a+b", "a\x00", "a\x7f", "\xff"} {
		if err := audit.CheckOrigin(bad); !errors.Is(err, audit.ErrOrigin) {
			t.Errorf("CheckOrigin(%q) err = %v, want %v", bad, err, audit.ErrOrigin)
		}
	}
}
