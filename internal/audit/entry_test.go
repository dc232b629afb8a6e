package audit_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// frozenEntry is full() in bytes.
const frozenEntry = "01" + // version
	"0000000000000007" + // sequence
	"000000006b49d200" + // time
	"0a" + "757365723a616c696365" + // actor
	"0b" + "6c6561662d657261736564" + // act
	"09" + "6d6c732f616c696365" + // identity
	"04" + "a0a1a2a3" + // ref
	"02" + "1011" + // key_id
	"07" + "6772c3bcc39f65" // detail

// The form of an entry is frozen: hashes and signatures are over it forever.
func TestEntryFormIsFrozen(t *testing.T) {
	want := full()
	raw := unhex(t, frozenEntry)
	if got := want.Bytes(); !bytes.Equal(got, raw) {
		t.Errorf("Bytes() = %x, want %s", got, frozenEntry)
	}
	got, err := audit.ParseEntry(raw)
	if err != nil {
		t.Fatalf("ParseEntry() err = %v, want nil", err)
	}
	wantEqual(t, "ParseEntry()", got, want)
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	edits := map[string]func(*audit.Entry){
		"full":             func(*audit.Entry) {},
		"bare":             func(e *audit.Entry) { *e = audit.Entry{Time: start, Actor: "a", Act: audit.Created} },
		"first second":     func(e *audit.Entry) { e.Time = time.Unix(0, 0).UTC() },
		"last second":      func(e *audit.Entry) { e.Time = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) },
		"largest sequence": func(e *audit.Entry) { e.Sequence = math.MaxUint64 },
		"unknown act":      func(e *audit.Entry) { e.Act = "teleported" },
		"control":          func(e *audit.Entry) { e.Detail = "two\nlines\x00\x1b[31m" },
		"long detail":      func(e *audit.Entry) { e.Detail = strings.Repeat("x", 20_000) },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			want := full()
			edit(&want)
			if err := want.Check(); err != nil {
				t.Errorf("Check() err = %v, want nil", err)
			}
			got, err := audit.ParseEntry(want.Bytes())
			if err != nil {
				t.Fatalf("ParseEntry() err = %v, want nil", err)
			}
			wantEqual(t, "ParseEntry()", got, want)
		})
	}
}

func TestAnEntryKeepsWholeSecondsInUTC(t *testing.T) {
	e := full()
	e.Time = start.Add(999 * time.Millisecond).In(time.FixedZone("", 3600))
	if got := e.Bytes(); hex.EncodeToString(got) != frozenEntry {
		t.Errorf("Bytes() = %x, want %s", got, frozenEntry)
	}
}

func TestACutEntryIsRefused(t *testing.T) {
	raw := unhex(t, frozenEntry)
	for n := range raw {
		if _, err := audit.ParseEntry(raw[:n]); !errors.Is(err, audit.ErrEntry) {
			t.Errorf("ParseEntry() of the first %d bytes err = %v, want %v", n, err, audit.ErrEntry)
		}
	}
	if _, err := audit.ParseEntry(append(raw, 0)); !errors.Is(err, wire.ErrTrailing) {
		t.Errorf("ParseEntry() with a trailing byte err = %v, want %v", err, wire.ErrTrailing)
	}
}

func TestAnEntryThatCannotBeReadIsNotWritten(t *testing.T) {
	edits := map[string]func(*audit.Entry){
		"before 1970":        func(e *audit.Entry) { e.Time = time.Unix(-1, 0) },
		"zero time":          func(e *audit.Entry) { e.Time = time.Time{} },
		"after 9999":         func(e *audit.Entry) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no actor":           func(e *audit.Entry) { e.Actor = "" },
		"no act":             func(e *audit.Entry) { e.Act = "" },
		"actor not UTF-8":    func(e *audit.Entry) { e.Actor = "\xff" },
		"act not UTF-8":      func(e *audit.Entry) { e.Act = "\xff" },
		"identity not UTF-8": func(e *audit.Entry) { e.Identity = "\xff" },
		"detail not UTF-8":   func(e *audit.Entry) { e.Detail = "\xc0\x80" },
		"too long":           func(e *audit.Entry) { e.Ref = make([]byte, audit.MaxEntrySize) },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			e := full()
			edit(&e)
			if err := e.Check(); !errors.Is(err, audit.ErrEntry) {
				t.Errorf("Check() err = %v, want %v", err, audit.ErrEntry)
			}
			if _, err := audit.ParseEntry(e.Bytes()); !errors.Is(err, audit.ErrEntry) {
				t.Errorf("ParseEntry() err = %v, want %v", err, audit.ErrEntry)
			}
		})
	}
}

func TestAnEntryMayBeAsLongAsItSays(t *testing.T) {
	e := full()
	e.Detail = strings.Repeat("x", audit.MaxEntrySize)
	e.Detail = e.Detail[len(e.Bytes())-audit.MaxEntrySize:]
	wantEqual(t, "len(Bytes())", len(e.Bytes()), audit.MaxEntrySize)
	if _, err := audit.ParseEntry(e.Bytes()); err != nil {
		t.Errorf("ParseEntry() err = %v, want nil", err)
	}
	e.Detail += "x"
	if _, err := audit.ParseEntry(e.Bytes()); !errors.Is(err, audit.ErrEntry) {
		t.Errorf("ParseEntry() of a byte more err = %v, want %v", err, audit.ErrEntry)
	}
}

func TestForeignEntriesAreRefused(t *testing.T) {
	edits := map[string]func([]byte){
		"version 0":       func(b []byte) { b[0] = 0 },
		"version 2":       func(b []byte) { b[0] = 2 },
		"time wraps":      func(b []byte) { b[9] = 0x80 },
		"latest time":     func(b []byte) { copy(b[9:17], bytes.Repeat([]byte{0xFF}, 8)) },
		"long length":     func(b []byte) { b[17] = 0x80 },
		"reserved length": func(b []byte) { b[17] = 0xC0 },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			raw := unhex(t, frozenEntry)
			edit(raw)
			if e, err := audit.ParseEntry(raw); !errors.Is(err, audit.ErrEntry) {
				t.Errorf("ParseEntry() = %+v, err = %v, want %v", e, err, audit.ErrEntry)
			}
		})
	}
}

func TestActsAreLowerCaseWordsAndDiffer(t *testing.T) {
	word := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	for i, act := range audit.Acts {
		if !word.MatchString(string(act)) {
			t.Errorf("act %q is not a lower-case word", act)
		}
		if slices.Contains(audit.Acts[:i], act) {
			t.Errorf("act %q is there twice", act)
		}
	}
	wantEqual(t, "len(Acts)", len(audit.Acts), 25)
}
