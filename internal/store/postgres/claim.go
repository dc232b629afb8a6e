package postgres

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// Claim implements store.Store. If ctx ends while the claim is being committed, Claim returns what
// was claimed.
func (s *Store) Claim(ctx context.Context, identity string, n int, at time.Time) ([]store.KeyPackage, error) {
	if err := ctx.Err(); err != nil || n <= 0 {
		return nil, err
	}
	one := &act{identity: identity, n: n, at: at}
	if err := s.claims.Do(ctx, one); err != nil {
		return nil, err
	}
	return one.claimed, nil
}

// want is what several claims ask for that one statement serves, and the rows that it found.
type want struct {
	identity string
	at       int64
	claims   []*waiting
	n        int
	rows     []row
}

// wantsOf returns what the claims among acts ask for, in their order.
func wantsOf(group []*waiting) (order []*want) {
	type key struct {
		identity string
		at       int64
	}
	wants := make(map[key]*want)
	for _, one := range group {
		c := one.Act
		c.claimed = nil
		if c.n == 0 {
			continue
		}
		k := key{c.identity, sqlstore.Seconds(c.at)}
		if wants[k] == nil {
			wants[k] = &want{identity: k.identity, at: k.at}
			order = append(order, wants[k])
		}
		wants[k].claims = append(wants[k].claims, one)
		wants[k].n += c.n
	}
	return order
}

// claimSome hands out the first rows that are free, in one statement. It skips rows that another
// transaction is about to hand out, and rows in a backlog. PostgreSQL assumes that a limit which is
// not in the text means a tenth of the rows, and sorts them all. So the text has a power of two as
// its limit, and no more of these rows are read than are wanted.
const claimSome = `WITH first AS (SELECT id FROM (SELECT k.id FROM key_packages k
		WHERE k.state = 'available' AND NOT k.last_resort AND ` + free + ` AND k.not_after > @at
		ORDER BY k.id - 0 LIMIT %d FOR NO KEY UPDATE SKIP LOCKED) AS few LIMIT @n)
	UPDATE key_packages k SET state = 'claimed', claimed_at = @at
	FROM first JOIN contents c ON c.id = first.id JOIN wrapping_keys w ON w.id = c.wrapping_key, identities i
	WHERE k.id = first.id AND i.id = k.identity
	RETURNING ` + keyPackageColumns + `, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint`

// free is the condition of rows that may be handed out: of the version that signs, valid at a time,
// in no backlog, and not for a device that has still to confirm that it has the private keys.
const free = `k.identity = (SELECT id FROM identities WHERE name = @name)
		AND k.version = (SELECT version FROM identities WHERE name = @name AND retired_at IS NULL)
		AND k.not_before <= @at AND ` + sqlstore.Settled + ` AND ` + ahead

// ahead is the condition of rows that are in no backlog. If there is no backlog, it reads no row.
const ahead = `(NOT EXISTS (SELECT 1 FROM backlogs WHERE finished_at IS NULL)
		OR NOT EXISTS (SELECT 1 FROM backlogs o JOIN contents c ON c.id = k.id WHERE o.finished_at IS NULL
			AND (o.wrapping_key = c.wrapping_key OR o.identity = k.identity AND o.before > k.version AND o.last >= k.id)))`

// claim queues the statement that finds rows for claims.
func (tx *transaction) claim(w *want) {
	some := 1 << bits.Len(uint(w.n-1))
	queueAll(tx, &w.rows, sqlstore.ScanKeyPackage, fmt.Sprintf(claimSome, some), pgx.NamedArgs{"name": w.identity, "at": w.at, "n": w.n})
}

// handOut gives the rows that were found to the claims, in their order.
func (tx *transaction) handOut(ctx context.Context, w *want) error {
	rows := w.rows
	slices.SortFunc(rows, func(a, b row) int { return int(a.ID - b.ID) })
	for _, one := range w.claims {
		mine := rows[:min(one.Act.n, len(rows))]
		rows = rows[len(mine):]
		for i := range mine {
			e := record.EntryOf(&mine[i].KeyPackage, audit.Claimed, one.Act.at)
			e.Actor = store.Actor(one.Context)
			if err := tx.Record(ctx, mine[i].ID, e); err != nil {
				return err
			}
			one.Act.claimed = append(one.Act.claimed, mine[i].KeyPackage)
		}
	}
	return nil
}
