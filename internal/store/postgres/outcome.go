package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/backoff"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// errUnknown reports a transaction that may have been committed or not.
var errUnknown = errors.New("it is not known whether the last act was done")

// outcome asks the server again after askAgain, for as long as patience. The callers of that
// transaction wait meanwhile, others do not.
const (
	patience = 30 * time.Second
	askAgain = 50 * time.Millisecond
)

// outcome asks the server for the outcome of a transaction whose COMMIT got no answer. It returns
// nil if it was committed, and wraps cause if it was not.
func (s *Store) outcome(ctx context.Context, tx *transaction, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.discard(cause)
	for {
		switch done, known := s.committed(ctx, tx); {
		case known && done:
			return nil
		case known:
			return fmt.Errorf("%w: nothing was done: %w", store.ErrAway, cause)
		}
		if backoff.Sleep(ctx, askAgain) != nil {
			return fmt.Errorf("%w: %w: %w", store.ErrAway, errUnknown, cause)
		}
	}
}

// committed asks whether a transaction was committed, and reports whether the answer is known. The
// number of the transaction does not suffice: a server that was cut off forgets numbers that were
// not on its disk yet, and gives them to other transactions, which may claim the same key packages
// and have the same entries. So its own entry has to be there too. It is looked up second: what was
// committed at the first question is visible then.
func (s *Store) committed(ctx context.Context, tx *transaction) (done, known bool) {
	var status *string
	err := s.pool.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", tx.id).Scan(&status)
	switch {
	case code(err) == codeInvalid: // a number that is not in use yet
		return false, true
	case err != nil || status == nil:
		return false, false
	case *status == "aborted":
		return false, true
	case *status != "committed":
		return false, false
	case tx.mark == nil:
		return true, true
	}
	var random []byte
	err = s.pool.QueryRow(ctx, "SELECT mark FROM audit WHERE sequence = $1", tx.mark.sequence).Scan(&random)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, true
	}
	if err == nil {
		err = s.Durable(ctx)
	}
	return bytes.Equal(random, tx.mark.random), err == nil
}
