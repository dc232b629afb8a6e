package operator

import (
	"context"
	"errors"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// ErrNoCopy reports a backend whose records cannot be copied.
var ErrNoCopy = errors.New("its records cannot be copied")

// Migrate copies all records to another store, which must have none (record.ErrNotEmpty), in one
// transaction. It returns how many rows each table has. The store that is copied stays as it is,
// and should not be written to afterwards. It needs no token.
func (o *Operator) Migrate(ctx context.Context, to store.Store) (rows map[string]int64, err error) {
	source, readable := o.store.(record.Source)
	sink, writable := to.(record.Sink)
	if !readable || !writable {
		return nil, ErrNoCopy
	}
	err = source.Snapshot(ctx, func(s record.Snapshot) error {
		rows, err = sink.Load(ctx, s)
		return err
	})
	return rows, err
}
