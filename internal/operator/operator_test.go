package operator

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// fixture is an operator over a SoftHSM token and a store of its own, with a current wrapping
// key for each custody, and a clock that a test can set.
type fixture struct {
	*Operator
	config   Config
	reported *reported
	clock    *clock
}

// clock is a time that stands still until a test moves it.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// reported keeps what was reported.
type reported struct {
	mu       sync.Mutex
	notes    []string
	warnings []error
	progress []Progress
}

func (r *reported) Note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, text)
}

func (r *reported) Warn(warning error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, warning)
}

func (r *reported) Progress(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress = append(r.progress, p)
}

// onBothStores runs a test over SQLite and over PostgreSQL, each with a token of its own.
func onBothStores(t *testing.T, test func(*testing.T, *fixture)) {
	t.Run("sqlite", func(t *testing.T) {
		s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), sqlite.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, newFixture(t, s))
	})
	t.Run("postgres", func(t *testing.T) {
		url := postgrestest.Shared(t).Database(t)
		s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, newFixture(t, s))
	})
}

// newFixture makes an operator over s and a token of its own.
func newFixture(t *testing.T, s store.Store) *fixture {
	t.Helper()
	cfg := softhsmtest.Config(t)
	f := &fixture{reported: &reported{}, clock: &clock{now: time.Now().UTC().Truncate(time.Second)}}
	f.config = Config{
		Settings: config.Default(),
		Store:    s,
		OpenToken: func(ctx context.Context) (*token.Token, error) {
			opened, err := token.Open(ctx, cfg)
			if err == nil {
				t.Cleanup(func() { opened.Close() })
			}
			return opened, err
		},
		Rand: rand.Reader, Now: f.clock.Now, Processors: 2,
	}
	f.Operator = New(f.config, f.reported)
	inv, err := f.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []vault.Mechanism{vault.AESGCM, vault.AESKeyWrap} {
		if _, err := inv.CreateWrappingKey(t.Context(), m, true, f.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestSweepWithNothingToDo(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		if got, err := f.Sweep(t.Context(), SweepRequest{Unfinished: UnfinishedAfter, DestroyUnused: true}); err != nil || got != (SweepResult{}) {
			t.Errorf("Sweep() = %+v, %v, want nothing", got, err)
		}
	})
}
