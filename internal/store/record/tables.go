package record

import (
	"context"
	"fmt"
	"iter"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Kind is the kind of values that a column holds. NULL is one of them if the column may be empty.
type Kind int

// The kinds of columns, with the Go types of their values.
const (
	Number Kind = iota // int64
	Flag               // bool
	Text               // string
	Bytes              // []byte
)

// Column is a column of a Table.
type Column struct {
	Name string
	Kind Kind
}

// Table is a table that every backend has, with the same name and the same columns.
type Table struct {
	Name    string
	Columns []Column // the first one is a unique key
	Serial  bool     // the database gives new rows their keys
}

// Names returns the names of the columns.
func (t *Table) Names() []string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return names
}

func columns(kind Kind, names ...string) (out []Column) {
	for _, name := range names {
		out = append(out, Column{name, kind})
	}
	return out
}

func table(name string, serial bool, lists ...[]Column) *Table {
	t := &Table{Name: name, Serial: serial}
	for _, list := range lists {
		t.Columns = append(t.Columns, list...)
	}
	return t
}

// Tables are all tables of a store. A table comes after those that it refers to.
var Tables = []*Table{
	table("identities", true, columns(Number, "id", "version", "cipher_suite", "created_at", "retired_at", "destroyed_at"),
		columns(Text, "name", "key_label", "token_serial", "custody"), columns(Bytes, "credential", "signature_key", "key_id", "stamp", "stamp_key"), columns(Flag, "weak_key")),
	table("identity_versions", true, columns(Number, "id", "identity", "version", "cipher_suite", "created_at", "retired_at", "destroyed_at"),
		columns(Text, "state", "key_label", "token_serial"), columns(Bytes, "credential", "signature_key", "key_id", "stamp", "stamp_key"), columns(Flag, "weak_key")),
	table("wrapping_keys", true, columns(Number, "id", "uses", "created_at", "superseded_at", "destroyed_at"),
		columns(Text, "purpose", "label", "token_serial"), columns(Bytes, "key_id", "stamp"), columns(Flag, "current", "condemned")),
	table("intents", true, columns(Number, "id", "created_at"), columns(Text, "object", "token_serial"),
		columns(Bytes, "key_id", "stamp", "instead"), columns(Flag, "destroy")),
	table("key_packages", true, columns(Number, "id", "identity", "version", "wrapping_key", "cipher_suite", "created_at", "not_before", "not_after", "published_at",
		"claimed_at", "reserved_until", "consumed_at", "retired_until", "erased_at", "opened", "leased_until", "handed_over_at", "confirmed_at"),
		columns(Text, "state", "reserved_from", "custody", "directory"), columns(Bytes, "ref", "welcome_digest", "leaf", "sealed", "public", "release_digest"), columns(Flag, "last_resort")),
	table("backlogs", true, columns(Number, "id", "identity", "before", "last", "until", "wrapping_key", "begun_at", "moved", "finished_at")),
	table("audit", false, columns(Number, "sequence", "key_package"), columns(Bytes, "entry", "hash")),
	table("checkpoints", false, columns(Number, "size", "created_at"), columns(Bytes, "note")),
	table("audit_keys", true, columns(Number, "id", "created_at"), columns(Text, "label", "token_serial", "origin", "verifier_key"), columns(Bytes, "key_id")),
	table("leases", false, columns(Text, "name", "holder"), columns(Number, "until")),
	table("accounts", true, columns(Number, "id", "identity", "created_at"), columns(Text, "directory"), columns(Bytes, "client", "wrapping_key", "sealed")),
}

// Snapshot is a store as it is at one time. Nothing is written to the store during a snapshot.
type Snapshot interface {
	// Rows returns the rows of a table in the order of its first column, each with the values of
	// its columns as they are listed.
	Rows(ctx context.Context, t *Table) iter.Seq2[[]any, error]
}

// Source is a backend whose rows can be copied.
type Source interface {
	// Snapshot calls f with a snapshot, which ends when f returns.
	Snapshot(ctx context.Context, f func(Snapshot) error) error
}

// Sink is a backend that rows can be copied to.
type Sink interface {
	// Load copies all rows of a snapshot, in one transaction, to an empty store. The error is
	// ErrNotEmpty if it is not empty. It returns how many rows each table has then.
	Load(ctx context.Context, s Snapshot) (map[string]int64, error)
}

// ErrNotEmpty reports a store that has records but should have none.
var ErrNotEmpty = fmt.Errorf("there are records in it: %w", store.ErrExists)
