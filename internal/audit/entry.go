package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// entryVersion is the first byte of an entry.
const entryVersion = 1

// MaxEntrySize is the length of the longest encoding of an entry, in bytes. It bounds the memory
// that reading a foreign trail needs.
const MaxEntrySize = 1 << 16

// maxTime is the last second of the year 9999, in seconds since 1970: the last that RFC 3339 can
// express.
const maxTime = 253402300799

// ErrEntry reports bytes that are not an entry, or an entry that cannot be written.
var ErrEntry = errors.New("not an entry of an audit trail")

// Entry records who did what with a key. Its bytes, in the presentation language of RFC 9420,
// Section 2.1:
//
//	uint8  version = 1
//	uint64 sequence
//	uint64 time              seconds since 1970-01-01T00:00:00Z
//	opaque actor<V>          UTF-8
//	opaque act<V>            UTF-8
//	opaque identity<V>       UTF-8
//	opaque ref<V>            KeyPackageRef
//	opaque key_id<V>         CKA_ID
//	opaque detail<V>         UTF-8
//
// They are at most MaxEntrySize long. Texts may contain control characters: quote them for display.
type Entry struct {
	Sequence uint64    // from 0, without gaps
	Time     time.Time // whole seconds in UTC, of the years 1970 to 9999
	Actor    string    // who, such as "user:alice"; not empty
	Act      Act       // not empty
	Identity string    // name of the identity; may be empty
	Ref      []byte    // KeyPackageRef; may be empty
	KeyID    []byte    // CKA_ID of the key that the act concerns or used; may be empty
	Detail   string    // a few words, never a secret; may be empty
}

// Bytes encodes the entry. A fraction of a second is dropped. An entry that
// Check refuses encodes to bytes that ParseEntry refuses.
func (e *Entry) Bytes() []byte {
	out := make([]byte, 0, e.size())
	out = append(out, entryVersion)
	out = binary.BigEndian.AppendUint64(out, e.Sequence)
	out = binary.BigEndian.AppendUint64(out, uint64(e.Time.Unix())) // a time before 1970 becomes too large
	out = wire.AppendVector(out, []byte(e.Actor))
	out = wire.AppendVector(out, []byte(e.Act))
	out = wire.AppendVector(out, []byte(e.Identity))
	out = wire.AppendVector(out, e.Ref)
	out = wire.AppendVector(out, e.KeyID)
	return wire.AppendVector(out, []byte(e.Detail))
}

// size returns the length of the encoding.
func (e *Entry) size() int {
	size := 1 + 8 + 8
	for _, n := range []int{len(e.Actor), len(e.Act), len(e.Identity), len(e.Ref), len(e.KeyID), len(e.Detail)} {
		size += wire.VectorLen(n) + n
	}
	return size
}

// Check fails unless the entry can be written to a trail: it has an actor and an act, its texts are
// UTF-8, its time is in the years 1970 to 9999, and it is not longer than MaxEntrySize. The error
// wraps ErrEntry.
func (e *Entry) Check() error {
	switch seconds := e.Time.Unix(); {
	case e.size() > MaxEntrySize:
		return fmt.Errorf("%w: it has %d bytes, and at most %d are allowed", ErrEntry, e.size(), MaxEntrySize)
	case seconds < 0 || seconds > maxTime:
		return fmt.Errorf("%w: its time is not in the years 1970 to 9999", ErrEntry)
	case e.Actor == "":
		return fmt.Errorf("%w: it has no actor", ErrEntry)
	case e.Act == "":
		return fmt.Errorf("%w: it has no act", ErrEntry)
	}
	for _, text := range []string{e.Actor, string(e.Act), e.Identity, e.Detail} {
		if !utf8.ValidString(text) {
			return fmt.Errorf("%w: a text is not UTF-8", ErrEntry)
		}
	}
	return nil
}

// ParseEntry decodes an entry. It returns ErrEntry for another version, for input that is truncated
// or has trailing bytes, and for whatever Check refuses. It keeps acts that are not in Acts. Ref
// and KeyID alias b; if empty, they are not nil. Bytes encodes the result to the same bytes.
func ParseEntry(b []byte) (Entry, error) {
	if len(b) > MaxEntrySize {
		return Entry{}, fmt.Errorf("%w: it has %d bytes, and at most %d are allowed", ErrEntry, len(b), MaxEntrySize)
	}
	r := wire.NewReader(b)
	if version := r.Uint8(); r.Err() == nil && version != entryVersion {
		return Entry{}, fmt.Errorf("%w: version %d; this hsm-kp knows version 1", ErrEntry, version)
	}
	e := Entry{Sequence: r.Uint64(), Time: readTime(r)}
	e.Actor, e.Act, e.Identity = string(r.Vector()), Act(r.Vector()), string(r.Vector())
	e.Ref, e.KeyID, e.Detail = r.Vector(), r.Vector(), string(r.Vector())
	if err := r.Finish(); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	if err := e.Check(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// readTime reads a time. It turns one that is too late into one that Check refuses: time.Time
// counts from the year 1 and would overflow.
func readTime(r *wire.Reader) time.Time {
	return time.Unix(int64(min(r.Uint64(), maxTime+1)), 0).UTC()
}
