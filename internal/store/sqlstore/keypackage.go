package sqlstore

import (
	"context"
	"database/sql"
	"iter"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// ScanKeyPackage scans a row of a key package, in the order of columns that both backends select,
// and puts it together with its backlogs.
func ScanKeyPackage(row Scanner) (record.Row, error) {
	var r record.Row
	var created, notBefore, notAfter int64
	var published, reserved, consumed, claimed, retired, erased, leased, handedOver, confirmed sql.NullInt64
	var from sql.NullString
	var retireBy, until, eraseBy, begun sql.NullInt64
	err := row.Scan(&r.ID, &r.Ref, &r.Identity, &r.Suite, &r.State, &r.LastResort, &r.Custody, &r.WrappingKeyID, &r.Sealed,
		&r.Public, &created, &notBefore, &notAfter, &published, &r.WelcomeDigest, &reserved, &consumed, &r.Opened,
		&r.Version, &r.Leaf, &claimed, &retired, &erased, &from, &r.Directory, &leased,
		&r.ReleaseDigest, &handedOver, &confirmed, &retireBy, &until, &eraseBy, &begun)
	r.CreatedAt, r.NotBefore, r.NotAfter = Date(created), Date(notBefore), Date(notAfter)
	r.PublishedAt, r.ReservedUntil, r.ConsumedAt = OptionalDate(published), OptionalDate(reserved), OptionalDate(consumed)
	r.ClaimedAt, r.RetiredUntil, r.ErasedAt = OptionalDate(claimed), OptionalDate(retired), OptionalDate(erased)
	r.ReservedFrom, r.LeasedUntil = store.State(from.String), OptionalDate(leased)
	r.HandedOverAt, r.ConfirmedAt = OptionalDate(handedOver), OptionalDate(confirmed)
	if err == nil {
		r.Ahead(record.Lag{Retire: retireBy.Int64, Until: OptionalDate(until), Erase: eraseBy.Int64, Erased: OptionalDate(begun)})
	}
	return r, err
}

// Page is how many rows one query of a listing reads. Between pages no transaction is open, which
// would keep SQLite from folding the WAL into the file, and PostgreSQL from vacuuming.
const Page = 256

// Pages yields the key packages that f chooses. first returns the row that they come after, and
// next the next Page rows after one.
func Pages(f store.Filter, first func() (int64, error), next func(after int64) ([]record.Row, error)) iter.Seq2[store.KeyPackage, error] {
	return func(yield func(store.KeyPackage, error) bool) {
		after, err := first()
		for err == nil {
			var rows []record.Row
			if rows, err = next(after); err != nil {
				break
			}
			for i := range rows {
				if f.State != "" && rows[i].State != f.State {
					continue // a backlog was begun since
				}
				if !yield(rows[i].KeyPackage, nil) {
					return
				}
			}
			if len(rows) < Page {
				return
			}
			after = rows[len(rows)-1].ID
		}
		yield(store.KeyPackage{}, err)
	}
}

// RowOf returns the row of a key package, or 0, which is before all, for no ref. The error is
// store.ErrNotFound.
func (l *Layout) RowOf(ctx context.Context, db Database, ref []byte) (int64, error) {
	if len(ref) == 0 {
		return 0, nil
	}
	return ReadOne(ctx, db, Value[int64], "SELECT id FROM "+l.Contents+" WHERE ref = $1", ref)
}

// FindRefs implements store.Store.
func (a *Acts) FindRefs(ctx context.Context, lo, hi []byte, limit int) ([][]byte, error) {
	return ReadAll(ctx, a.db, Value[[]byte], "SELECT ref FROM "+a.layout.Contents+" WHERE ref BETWEEN $1 AND $2 ORDER BY ref LIMIT $3", lo, hi, limit)
}
