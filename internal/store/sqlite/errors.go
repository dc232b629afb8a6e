package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/mattn/go-sqlite3"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// ofOneAct reports whether an error of several acts in one transaction may come from one of them,
// rather than from the file that they share.
func ofOneAct(err error) bool {
	for _, all := range []error{store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged} {
		if errors.Is(err, all) {
			return false
		}
	}
	return true
}

// translate wraps an error of SQLite with the error of package store that it means, if there is
// one.
func translate(err error) error {
	var code sqlite3.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return store.ErrNotFound
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case !errors.As(err, &code):
		return err
	}
	switch {
	case code.SystemErrno == syscall.ENOSPC, code.SystemErrno == syscall.EDQUOT:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case code.Code == sqlite3.ErrBusy, code.Code == sqlite3.ErrLocked:
		return fmt.Errorf("%w: %w", store.ErrBusy, err)
	case code.Code == sqlite3.ErrFull:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case code.Code == sqlite3.ErrReadonly, code.Code == sqlite3.ErrPerm, code.Code == sqlite3.ErrCantOpen:
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	case code.Code == sqlite3.ErrNotADB, code.Code == sqlite3.ErrCorrupt:
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	case code.ExtendedCode == sqlite3.ErrConstraintUnique, code.ExtendedCode == sqlite3.ErrConstraintPrimaryKey:
		return store.ErrExists
	case code.ExtendedCode == sqlite3.ErrConstraintForeignKey:
		return store.ErrNotFound
	}
	return err
}
