package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
)

// ledger is what calls returned.
type ledger struct {
	sync.Mutex
	added   map[string]bool
	claimed map[string]int
	away    int // how often it was store.ErrAway
}

func (l *ledger) add(batch []store.KeyPackage) {
	l.Lock()
	defer l.Unlock()
	for i := range batch {
		l.added[string(batch[i].Ref)] = true
	}
}

func (l *ledger) claim(batch []store.KeyPackage) {
	l.Lock()
	defer l.Unlock()
	for i := range batch {
		l.claimed[string(batch[i].Ref)]++
	}
}

// until waits until what callers have reported fulfils a condition.
func (l *ledger) until(t *testing.T, what string, so func() bool) {
	t.Helper()
	holds := func() bool { l.Lock(); defer l.Unlock(); return so() }
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reported within a minute: %s", what)
		}
	}
}

// failed notes an error, which has to be store.ErrAway.
func (l *ledger) failed(t *testing.T, what string, err error) {
	l.Lock()
	defer l.Unlock()
	if !errors.Is(err, store.ErrAway) {
		t.Errorf("%s err = %v, want %v", what, err, store.ErrAway)
	}
	l.away++
}

// A server that is cut off three times in the middle of claims and batches loses nothing that a call
// reported, hands out nothing twice, and has an entry for each act. The same store goes on when the
// server is back. The server itself writes nothing to its disk that no call waits for.
func TestAServerThatStopsAndStartsLosesNothing(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.Options{Durable: true, Settings: []string{"wal_writer_delay=10s"}})
	s := openAt(t, server.Database(t))
	furnish(t, s)
	if err := s.AddKeyPackages(t.Context(), batchFrom(rand.New(rand.NewPCG(7, 7)), 20000)); err != nil {
		t.Fatal(err)
	}
	l := &ledger{added: map[string]bool{}, claimed: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() { claimUntil(ctx, t, s, l) })
		if i < 2 {
			wg.Go(func() { addUntil(ctx, t, s, l, rand.New(rand.NewPCG(i, 1))) })
		}
	}
	for round := range 3 {
		l.until(t, "of claims and batches", func() bool { return len(l.claimed) > 100*round && len(l.added) > 100*round })
		time.Sleep(500 * time.Millisecond)
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		l.until(t, "the server cannot be reached", func() bool { return l.away > round })
		if err := server.Up(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
	wg.Wait()
	l.check(t, s)
}

func claimUntil(ctx context.Context, t *testing.T, s *Store, l *ledger) {
	for ctx.Err() == nil {
		got, err := s.Claim(context.WithoutCancel(ctx), "alice", 2, made)
		l.claim(got)
		if err != nil {
			l.failed(t, "Claim()", err)
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func addUntil(ctx context.Context, t *testing.T, s *Store, l *ledger, source *rand.Rand) {
	for ctx.Err() == nil {
		batch := batchFrom(source, 50)
		if err := s.AddKeyPackages(context.WithoutCancel(ctx), batch); err != nil {
			l.failed(t, "AddKeyPackages()", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.add(batch)
	}
}

func (l *ledger) check(t *testing.T, s *Store) {
	t.Helper()
	if len(l.added) == 0 || len(l.claimed) == 0 || l.away == 0 {
		t.Errorf("%d added, %d claimed, %d times away: the test has shown nothing", len(l.added), len(l.claimed), l.away)
	}
	for ref, n := range l.claimed {
		if n != 1 {
			t.Errorf("key package %x was handed out %d times", ref, n)
		}
	}
	there, claimed := 0, 0
	for k, err := range s.KeyPackages(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		there++
		delete(l.added, string(k.Ref))
		if k.State == store.Claimed {
			claimed++
			delete(l.claimed, string(k.Ref))
		}
	}
	if len(l.added) > 0 || len(l.claimed) > 0 {
		t.Errorf("%d key packages are lost, and %d claims", len(l.added), len(l.claimed))
	}
	acts := actsOf(t, s)
	if acts[audit.Generated] != there || acts[audit.Claimed] != claimed {
		t.Errorf("the trail has %d generated and %d claimed, the store %d and %d", acts[audit.Generated], acts[audit.Claimed], there, claimed)
	}
	if _, err := audit.Verify(s.Entries(t.Context(), 0), nil); err != nil {
		t.Errorf("Verify() err = %v, want nil", err)
	}
}

// actsOf counts the entries of the trail by their acts.
func actsOf(t *testing.T, s *Store) map[audit.Act]int {
	t.Helper()
	acts := map[audit.Act]int{}
	for stored, err := range s.Entries(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		acts[e.Act]++
	}
	return acts
}

// The server may end connections at any time, as its administrator may, perhaps in the middle of a
// COMMIT: what a call reports as done is done once, and what it reports as failed is not done.
func TestAnActWhoseConnectionIsEndedIsDoneOnce(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.Options{Durable: true})
	url := server.Database(t)
	s := openAt(t, url)
	other, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	known := func(err error) bool { return errors.Is(err, store.ErrAway) && !errors.Is(err, errUnknown) }
	var told, small atomic.Int64
	ended := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := s.Record(t.Context(), audit.Entry{Time: made, Act: audit.Signed}); err == nil {
				told.Add(1)
			} else if !known(err) {
				t.Errorf("Record() err = %v, want nil, or that nothing was done", err)
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := s.AddIdentity(t.Context(), store.Identity{Name: fmt.Sprint("device-", small.Load()), KeyID: fmt.Append(nil, small.Load()), CreatedAt: made}); err == nil {
				small.Add(1)
			} else if !known(err) {
				t.Errorf("AddIdentity() err = %v, want nil, or that nothing was done", err)
			}
		}
	})
	// For five seconds, and until something was done in between: on a busy machine a connection may
	// take longer to be made than it lives, so each lives longer than the one before.
	begun, least := time.Now(), int64(0)
	for pause := 5 * time.Millisecond; time.Since(begun) < 5*time.Second || least == 0 && time.Since(begun) < time.Minute; time.Sleep(pause) {
		if least = min(told.Load(), small.Load()); least == 0 {
			pause += time.Millisecond
		}
		var n int
		err := other.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		ended += n
	}
	cancel()
	wg.Wait()
	acts := actsOf(t, s)
	signed, created := int(told.Load()), int(small.Load())
	t.Logf("%d and %d acts, %d connections ended", signed, created, ended)
	if acts[audit.Signed] != signed || acts[audit.Created] != created || signed == 0 || created == 0 || ended == 0 {
		t.Errorf("the trail has %d signed and %d created, %d and %d were told, with %d connections ended", acts[audit.Signed], acts[audit.Created], signed, created, ended)
	}
}

// If a COMMIT got no answer, the server's word on the transaction counts.
func TestTheOutcomeOfATransactionIsAskedFor(t *testing.T) {
	s := openAt(t, postgrestest.Shared(t).Database(t))
	cause := errors.New("the cable was cut")
	for _, commit := range []bool{true, false} {
		tx, err := s.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var id string
		if err := tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text").Scan(&id); err != nil {
			t.Fatal(err)
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		time.AfterFunc(100*time.Millisecond, func() { end(context.Background()) }) // until then it is under way
		switch err := s.outcome(t.Context(), &transaction{id: id}, cause); {
		case commit && err != nil:
			t.Errorf("outcome() of a committed one err = %v, want nil", err)
		case !commit && (!errors.Is(err, store.ErrAway) || !errors.Is(err, cause) || errors.Is(err, errUnknown)):
			t.Errorf("outcome() of one that was rolled back err = %v, want away, and known", err)
		}
	}
}

// A server that was cut off gives the number of a transaction that was not on its disk to another
// one, which may have the same entry. If this one is committed, the other is not for that.
func TestTheNumberOfALostTransactionIsGivenOutAgain(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.Options{Durable: true, Settings: []string{"wal_writer_delay=10s"}})
	s := openAt(t, server.Database(t))
	act := func() (*transaction, error) {
		conn, err := s.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tx := begin(conn, concurrent)
		tx.actor = "test"
		if err := tx.Record(t.Context(), 0, audit.Entry{Time: made, Act: audit.Signed}); err != nil {
			t.Fatal(err)
		}
		if err := tx.end(t.Context()); err != nil {
			return tx, err
		}
		return tx, tx.flush(t.Context())
	}
	lost, err := act()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the server was cut off")
	lost.rollback(t.Context())
	lost.conn.Release() // it is dead
	if err := server.Up(); err != nil {
		t.Fatal(err)
	}
	if err := s.outcome(t.Context(), lost, cause); !errors.Is(err, cause) || errors.Is(err, errUnknown) {
		t.Errorf("outcome() of a number that nobody has err = %v, want away, and known", err)
	}
	for range 100 {
		other, err := act()
		if err == nil {
			err = other.commit(t.Context())
		}
		other.conn.Release()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.outcome(t.Context(), other, cause); err != nil {
			t.Errorf("outcome() of what was committed err = %v, want nil", err)
		}
		if other.id != lost.id {
			continue
		}
		if err := s.outcome(t.Context(), lost, cause); !errors.Is(err, store.ErrAway) || errors.Is(err, errUnknown) {
			t.Errorf("outcome() of what was lost err = %v, want away, and known", err)
		}
		return
	}
	t.Fatal("its number was not given out again: the test has shown nothing")
}

// No error has a password in it, however the URL is malformed.
func TestNoErrorHasThePassword(t *testing.T) {
	for _, text := range []string{
		"postgres://u:geheim@localhost:port/db", "postgres://u:geheim@local host/db", "postgres://u:geheim%zz@localhost/db",
		"postgres://u:geheim@localhost:1/db", "postgres://u@localhost:1/db?password=geheim&sslmode=perhaps", "postgres:u:geheim@host", "host=localhost password=geheim port=x",
		"postgres://u@localhost:1/db?password=geheim",
	} {
		_, err := Open(t.Context(), text, Options{})
		if err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("Open() err = %v, want one without the password", err)
		}
		if strings.Contains(Redact(text), "geheim") && Names(text) {
			t.Errorf("Redact() = %q, want no password", Redact(text))
		}
	}
}

// A server that refuses everybody can be reached.
func TestAServerThatLetsNobodyInIsNotAway(t *testing.T) {
	there := postgrestest.Shared(t).Database(t)
	for what, c := range map[string]struct {
		change func(*url.URL)
		want   error
	}{
		"an unknown role":     {func(u *url.URL) { u.User = url.User("nobody-of-that-name") }, store.ErrLogin},
		"an unknown database": {func(u *url.URL) { u.Path = "/nothing-of-that-name" }, store.ErrNoDatabase},
	} {
		u, err := url.Parse(there)
		if err != nil {
			t.Fatal(err)
		}
		c.change(u)
		for _, create := range []bool{false, true} {
			if _, err := Open(t.Context(), u.String(), Options{Create: create}); !errors.Is(err, c.want) || errors.Is(err, store.ErrAway) {
				t.Errorf("Open() with %s err = %v, want %v", what, err, c.want)
			}
		}
	}
}

// Open refuses a newer schema and leaves it as it is.
func TestANewerSchemaIsRefused(t *testing.T) {
	url := postgrestest.Shared(t).Database(t)
	s := openAt(t, url)
	if _, err := s.pool.Exec(t.Context(), "UPDATE hsm_kp_schema SET version = 99"); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), url, Options{Create: true})
	var newer *store.SchemaError
	if !errors.As(err, &newer) || newer.Have != 99 {
		t.Errorf("Open() err = %v, want that of schema 99", err)
	}
}

// Several processes that open an empty database at once all get the same store.
func TestFirstStartsTakeTurns(t *testing.T) {
	url := postgrestest.Shared(t).Database(t)
	if _, err := Open(t.Context(), url, Options{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Open() of an empty database err = %v, want %v", err, store.ErrNotFound)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			s, err := Open(t.Context(), url, Options{Create: true})
			if err != nil {
				t.Errorf("Open() err = %v, want nil", err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
}
