package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Error codes of PostgreSQL: Appendix A of its documentation.
const (
	codeUnique        = "23505"
	codeForeignKey    = "23503"
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeDiskFull      = "53100"
	codeConnections   = "53300"
	codeLockTimeout   = "55P03"
	codeCanceled      = "57014"
	codeInvalid       = "22023" // a parameter's value
	codeReadOnly      = "25006"
	codePrivilege     = "42501"
	classDamaged      = "XX"    // internal errors, and data that is corrupted
	classOperator     = "57P"   // the server is shutting down, or starting
	classConnection   = "08"    // the connection failed
	classLogin        = "28"    // the user is refused
	codeNoDatabase    = "3D000" // there is no such database
)

func code(err error) string {
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		return failed.Code
	}
	return ""
}

// lost reports whether an error is that of a connection that is lost, or was never made.
func lost(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !dialing(err) {
		return false
	}
	if c := code(err); c != "" {
		return strings.HasPrefix(c, classOperator) || strings.HasPrefix(c, classConnection) || c == codeConnections
	}
	var network net.Error
	return dialing(err) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "conn closed")
}

// dialing reports whether an error came from making a connection.
func dialing(err error) bool {
	var failed *pgconn.ConnectError
	return errors.As(err, &failed)
}

// again reports whether a transaction that failed before COMMIT may succeed the next time: it was
// refused in favor of another, or its connection was dead.
func again(err error) bool {
	switch code(err) {
	case codeSerialization, codeDeadlock:
		return true
	}
	return lost(err) && !dialing(err)
}

// discard closes all connections after an error of a lost connection: those that were open at the
// same time are lost too.
func (s *Store) discard(err error) {
	if lost(err) {
		s.pool.Reset()
	}
}

// ofOneAct reports whether an error of several acts in one transaction may come from one of them,
// rather than from the server that they share.
func ofOneAct(err error) bool { return !lost(err) && !dialing(err) }

// translate wraps an error of PostgreSQL with the error of package store that it means, if there
// is one. It leaves out what the server says of a row, because that quotes values.
func translate(err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrAway):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return store.ErrNotFound
	}
	switch c := code(err); {
	case c == codeUnique:
		return store.ErrExists
	case c == codeForeignKey:
		return store.ErrNotFound
	case c == codeNoDatabase:
		return fmt.Errorf("%w: %w", store.ErrNoDatabase, err)
	case strings.HasPrefix(c, classLogin):
		return fmt.Errorf("%w: %w", store.ErrLogin, err)
	case c == codeDiskFull:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case c == codeLockTimeout, c == codeCanceled, c == codeSerialization, c == codeDeadlock:
		return fmt.Errorf("%w: %w", store.ErrBusy, err)
	case c == codeReadOnly, c == codePrivilege:
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	case strings.HasPrefix(c, classDamaged):
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	case lost(err), dialing(err):
		return fmt.Errorf("%w: %w", store.ErrAway, err)
	}
	return err
}
