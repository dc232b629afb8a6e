package audit_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

func FuzzParseEntry(f *testing.F) {
	e := full()
	f.Add(e.Bytes())
	f.Add(newTrail(1, nil)[0].Bytes)
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := audit.ParseEntry(b)
		if err != nil {
			return
		}
		if got := e.Bytes(); !bytes.Equal(got, b) {
			t.Errorf("Bytes() of ParseEntry(%x) = %x", b, got)
		}
		if err := e.Check(); err != nil {
			t.Errorf("Check() err = %v, want nil", err)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(frozenCheckpoint)
	f.Add(frozenCheckpoint + "extension\n")
	f.Add("a b\n013\n" + root13 + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := audit.ParseCheckpoint(text)
		if err != nil {
			return
		}
		wantEqual(t, "Text()", c.Text(), text)
		if err := audit.CheckOrigin(c.Origin); err != nil {
			t.Errorf("CheckOrigin(%q) err = %v, want nil", c.Origin, err)
		}
	})
}

// FuzzOpen checks that nothing opens with our key but what it signed, and nothing with any other
// key but a checkpoint under its name.
func FuzzOpen(f *testing.F) {
	var ours []string
	for kind, key := range newKeys(f) {
		ours = append(ours, verifierKey(f, origin, key))
		f.Add(frozenNote(kind), frozenNotes[kind].vkey)
	}
	f.Add(append(frozenNote("Ed25519"), frozenNote("ECDSA P-256")[len(frozenCheckpoint)+1:]...), ours[0])
	f.Fuzz(func(t *testing.T, signed []byte, vkey string) {
		c, err := audit.Open(signed, vkey)
		if err != nil {
			return
		}
		if slices.Contains(ours, vkey) {
			wantEqual(t, "Text()", c.Text(), frozenCheckpoint)
		}
		if !bytes.HasPrefix(signed, []byte(c.Text()+"\n")) || !bytes.HasPrefix([]byte(vkey), []byte(c.Origin+"+")) {
			t.Errorf("Open(%q, %q) = %v", signed, vkey, c)
		}
	})
}
