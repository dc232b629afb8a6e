package audit_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

const origin = "hsm-kp.example.com/trail"

// start is the time of the first entry of every trail.
var start = time.Date(2027, time.January, 15, 8, 0, 0, 0, time.UTC)

// full returns an entry with all fields set.
func full() audit.Entry {
	return audit.Entry{
		Sequence: 7,
		Time:     start,
		Actor:    "user:alice",
		Act:      audit.LeafErased,
		Identity: "mls/alice",
		Ref:      []byte{0xA0, 0xA1, 0xA2, 0xA3},
		KeyID:    []byte{0x10, 0x11},
		Detail:   "grüße",
	}
}

// entryAt returns entry n of a trail.
func entryAt(n uint64) audit.Entry {
	return audit.Entry{
		Sequence: n,
		Time:     start.Add(time.Duration(n) * time.Minute),
		Actor:    "user:alice",
		Act:      []audit.Act{audit.Generated, audit.Claimed, audit.Consumed}[n%3],
		Identity: "mls/alice",
		KeyID:    []byte{byte(n)},
	}
}

// trail is a slice of entries as a store would hold them.
type trail []audit.Stored

// newTrail chains n entries, each changed by edit unless it is nil.
func newTrail(n int, edit func(*audit.Entry)) trail {
	var entries []audit.Entry
	for i := range n {
		e := entryAt(uint64(i))
		if edit != nil {
			edit(&e)
		}
		entries = append(entries, e)
	}
	return chained(entries)
}

func chained(entries []audit.Entry) trail {
	var all trail
	var head audit.Hash
	for _, e := range entries {
		b := e.Bytes()
		head = audit.Chain(head, b)
		all = append(all, audit.Stored{Bytes: b, Hash: head})
	}
	return all
}

// all yields the entries.
func (t trail) all() iter.Seq2[audit.Stored, error] {
	return func(yield func(audit.Stored, error) bool) {
		for _, s := range t {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// checkpoint returns the checkpoint over the first n entries.
func (t trail) checkpoint(n int) audit.Checkpoint {
	var tree audit.Tree
	for _, s := range t[:n] {
		tree.Append(s.Bytes)
	}
	return audit.Checkpoint{Origin: origin, Size: tree.Size(), Root: tree.Root()}
}

// newKeys returns fixed keys of each kind that signs checkpoints.
func newKeys(tb testing.TB) map[string]crypto.Signer {
	tb.Helper()
	p256, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte(strings.Repeat("p", 32)))
	if err != nil {
		tb.Fatal(err)
	}
	return map[string]crypto.Signer{
		"Ed25519":     ed25519.NewKeyFromSeed([]byte(strings.Repeat("e", ed25519.SeedSize))),
		"ECDSA P-256": p256,
	}
}

func verifierKey(tb testing.TB, name string, key crypto.Signer) string {
	tb.Helper()
	vkey, err := audit.VerifierKey(name, key.Public())
	if err != nil {
		tb.Fatalf("VerifierKey() err = %v, want nil", err)
	}
	return vkey
}

func sign(tb testing.TB, c audit.Checkpoint, key crypto.Signer) []byte {
	tb.Helper()
	signed, err := audit.Sign(c, key)
	if err != nil {
		tb.Fatalf("Sign() err = %v, want nil", err)
	}
	return signed
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func wantEqual(tb testing.TB, what string, got, want any) {
	tb.Helper()
	if g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want); g != w {
		tb.Errorf("%s = %s, want %s", what, g, w)
	}
}
