package sqlstore

import (
	"database/sql"
	"time"
)

// Seconds returns what a column of times holds: whole seconds since the epoch.
func Seconds(t time.Time) int64 { return t.Unix() }

// OptionalSeconds returns NULL for the zero time.
func OptionalSeconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}

// Date returns the time that a column holds, in UTC.
func Date(s int64) time.Time { return time.Unix(s, 0).UTC() }

// OptionalDate returns the zero time for NULL.
func OptionalDate(s sql.NullInt64) time.Time {
	if !s.Valid {
		return time.Time{}
	}
	return Date(s.Int64)
}

// Blob returns b for a column that is never NULL, which is what a driver makes of nil.
func Blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// OptionalBlob returns NULL for empty bytes.
func OptionalBlob(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
