package postgres

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// A claim walks the index of rows that may be claimed, even if the statistics say that nearly all
// may be: the primary key would lead it past all that were claimed before.
func TestAClaimWalksTheIndexOfWhatIsFree(t *testing.T) {
	s := openAt(t, postgrestest.Shared(t).Database(t))
	furnish(t, s)
	if err := s.AddKeyPackages(t.Context(), batchFrom(rand.New(rand.NewPCG(3, 3)), 20000)); err != nil {
		t.Fatal(err)
	}
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			if _, err := s.pool.Exec(t.Context(), "VACUUM ANALYZE"); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []int{1, 64} {
			lines, err := sqlstore.ReadAll(t.Context(), s, sqlstore.Value[string], "EXPLAIN "+fmt.Sprintf(claimSome, n), pgx.NamedArgs{"name": "alice", "at": sqlstore.Seconds(made), "n": n})
			if err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			if !strings.Contains(plan, "Index Scan using claimable") || strings.Contains(plan, "Sort") {
				t.Errorf("analyzed %v, %d: the plan is\n%s", analyzed, n, plan)
			}
		}
	}
}
