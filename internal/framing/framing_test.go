package framing_test

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/framing"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// context is a GroupContext of suite 2: group "g", epoch 7.
const context = "0001" + "0002" + "0167" + "0000000000000007" + "00" + "00" + "00"

// content is a FramedContent up to its content type: group "g", epoch 7, member 3.
const content = "0167" + "0000000000000007" + "01" + "00000003" + "00"

func octets(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// valid has a FramedContentTBS of each kind without a leaf node.
var valid = map[string]string{
	"application":        "0001" + "0002" + content + "01" + "026869" + context,
	"remove":             "0001" + "0001" + content + "02" + "0003" + "00000001" + context,
	"external psk":       "0001" + "0001" + content + "02" + "0004" + "01" + "0161" + "0162" + context,
	"resumption psk":     "0001" + "0001" + content + "02" + "0004" + "02" + "03" + "0161" + "0000000000000001" + "0162" + context,
	"reinit":             "0001" + "0001" + content + "02" + "0005" + "0168" + "0001" + "0002" + "00" + context,
	"external init":      "0001" + "0001" + content + "02" + "0006" + "0161" + context,
	"context extensions": "0001" + "0001" + content + "02" + "0007" + "00" + context,
	"empty commit":       "0001" + "0002" + content + "03" + "00" + "00" + context,
	"commit":             "0001" + "0002" + content + "03" + "0b" + "01" + "0003" + "00000001" + "02" + "026161" + "00" + context,
	"external sender":    "0001" + "0001" + "0167" + "0000000000000007" + "02" + "00000000" + "00" + "02" + "0003" + "00000001",
}

func TestContentIsReadToItsEnd(t *testing.T) {
	for name, digits := range valid {
		b := octets(t, digits)
		got, err := framing.ParseContentTBS(b)
		if err != nil {
			t.Errorf("%s: ParseContentTBS() err = %v, want nil", name, err)
			continue
		}
		if string(got.Content.GroupID) != "g" || got.Content.Epoch != 7 {
			t.Errorf("%s: group %q, epoch %d, want g, 7", name, got.Content.GroupID, got.Content.Epoch)
		}
		if inGroup := got.Content.Sender.Type == framing.SenderMember; inGroup != (got.Context != nil) {
			t.Errorf("%s: has a GroupContext: %v, want %v", name, got.Context != nil, inGroup)
		}
		if _, err := framing.ParseContentTBS(append(b, 0)); !errors.Is(err, wire.ErrTrailing) {
			t.Errorf("%s and a byte: err = %v, want %v", name, err, wire.ErrTrailing)
		}
		for n := range len(b) {
			if _, err := framing.ParseContentTBS(b[:n]); err == nil {
				t.Errorf("%s: ParseContentTBS() of the first %d bytes of %d: err = nil", name, n, len(b))
			}
		}
	}
}

func TestUnknownKindsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		digits string
		want   error
	}{
		"version":       {"0002" + "0001" + content + "01" + "00" + context, framing.ErrVersion},
		"wire format":   {"0001" + "0003" + content + "01" + "00" + context, framing.ErrKind},
		"sender":        {"0001" + "0001" + "0167" + "0000000000000007" + "05" + "00" + "01" + "00", framing.ErrKind},
		"content":       {"0001" + "0001" + content + "04" + "00" + context, framing.ErrKind},
		"proposal":      {"0001" + "0001" + content + "02" + "0008" + "00" + context, framing.ErrKind},
		"psk":           {"0001" + "0001" + content + "02" + "0004" + "03" + "00" + "00" + context, framing.ErrKind},
		"psk usage":     {"0001" + "0001" + content + "02" + "0004" + "02" + "04" + "00" + "0000000000000001" + "00" + context, framing.ErrKind},
		"proposalOrRef": {"0001" + "0001" + content + "03" + "0203" + "00" + "00" + context, framing.ErrKind},
		"path":          {"0001" + "0001" + content + "03" + "00" + "02" + context, framing.ErrKind},
	} {
		if _, err := framing.ParseContentTBS(octets(t, tt.digits)); !errors.Is(err, tt.want) {
			t.Errorf("%s: ParseContentTBS() err = %v, want %v", name, err, tt.want)
		}
	}
}

func FuzzParseContentTBS(f *testing.F) {
	for _, digits := range valid {
		f.Add(octets(f, digits))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := framing.ParseContentTBS(b)
		if err != nil {
			return
		}
		if _, err := framing.ParseContentTBS(append(b, 0)); err == nil {
			t.Error("it parses, and with another byte too")
		}
		if (c.Content.Type == framing.ContentCommit) != (c.Content.Commit != nil) {
			t.Errorf("type %d, commit %v", c.Content.Type, c.Content.Commit)
		}
	})
}
