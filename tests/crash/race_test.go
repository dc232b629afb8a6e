package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// atOnce calls f n times at once, each with its number, and returns the errors.
func atOnce(n int, f func(int) error) []error {
	errs := make([]error, n)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	return errs
}

// wantOne checks that one of many succeeded, and that the others failed with the right error.
func wantOne(t *testing.T, errs []error, told func(error) bool) (winner int) {
	t.Helper()
	winner, winners := -1, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			winners++
		case !told(err):
			t.Errorf("number %d: %v", i, err)
		}
	}
	if winners != 1 {
		t.Fatalf("%d of %d won, want one", winners, len(errs))
	}
	return winner
}

// keyPackageOf generates a key package and returns it.
func (p *prepared) keyPackageOf(t *testing.T, name string) *keypackage.KeyPackage {
	t.Helper()
	kp, err := keypackage.Parse(p.Public(p.Generate(name, "1")[0]))
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

// Sixty-four goroutines each have a Welcome for one key package: one opens it. After it is
// confirmed, none does, not even the winner.
func TestSixtyFourGoroutinesAndOneKeyPackage(t *testing.T) {
	const rounds, racers = 4, 64
	p := prepare(t)
	for name, custody := range identities {
		t.Run(custody, func(t *testing.T) {
			for range rounds {
				kp := p.keyPackageOf(t, name)
				welcomes := make([]*keypackage.Welcome, racers)
				for i := range welcomes {
					welcomes[i] = p.group.Welcome(kp)
				}
				if err := p.Open(func(o *program.Opened) { raceInside(t, o, kp, welcomes) }); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	p.CheckRest(t)
}

func raceInside(t *testing.T, o *program.Opened, kp *keypackage.KeyPackage, welcomes []*keypackage.Welcome) {
	t.Helper()
	now := time.Now()
	open := func(i int) error {
		opened, err := o.Inventory.OpenWelcome(context.Background(), inventory.WelcomeRequest{Welcome: welcomes[i], Now: now, Until: now.Add(time.Hour)})
		if err == nil && string(opened.GroupInfo.GroupContext.GroupID) != "group" {
			err = fmt.Errorf("the group is %q", opened.GroupInfo.GroupContext.GroupID)
		}
		opened.Clear()
		return err
	}
	winner := wantOne(t, atOnce(len(welcomes), open), func(err error) bool { return errors.Is(err, store.ErrReserved) })
	ref, err := kp.Ref()
	if err != nil {
		t.Fatal(err)
	}
	// Many confirm at once as well.
	wantOne(t, atOnce(8, func(int) error {
		return o.Inventory.Confirm(context.Background(), ref, inventory.WelcomeDigest(welcomes[winner]), now)
	}), func(err error) bool { return errors.Is(err, store.ErrState) })
	for i, err := range atOnce(len(welcomes), open) {
		if !errors.Is(err, store.ErrConsumed) {
			t.Errorf("number %d: %v, want %v", i, err, store.ErrConsumed)
		}
	}
	faults, halves := o.ObjectFaults()
	if len(faults) > 0 || halves > 0 {
		t.Errorf("the token has %d session objects, and %v", halves, faults)
	}
}

// Four processes each have a Welcome for one key package, or all have the same Welcome and
// consume it: one succeeds.
func TestFourProcessesAndOneKeyPackage(t *testing.T) {
	const rounds, racers = 4, 4
	p := prepare(t)
	for name, custody := range identities {
		for _, same := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the same Welcome %v", custody, same), func(t *testing.T) {
				for range rounds {
					p.raceOutside(t, p.keyPackageOf(t, name), racers, same)
				}
			})
		}
	}
	p.CheckRest(t)
}

func (p *prepared) raceOutside(t *testing.T, kp *keypackage.KeyPackage, racers int, same bool) {
	t.Helper()
	dir := t.TempDir()
	told := []string{"it is reserved for another Welcome"}
	args := []string{"welcome", "open", "--json"}
	if same {
		told = []string{"it was consumed by a Welcome", "not in the state for that"}
		args = append(args, "--consume")
	}
	file := func(i int) string {
		if same {
			i = 0
		}
		return filepath.Join(dir, fmt.Sprint(i))
	}
	for i := range racers {
		if err := os.WriteFile(file(i), p.group.Welcome(kp).Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(i int) error { return p.afterLogin(append(args[:len(args):len(args)], file(i))...) }
	// None can reserve before all have logged in and opened their Welcome.
	hold := p.holdStore(t)
	time.AfterFunc(time.Duration(racers)*stagger+500*time.Millisecond, hold)
	winner := wantOne(t, atOnce(racers, func(i int) error {
		time.Sleep(time.Duration(i) * stagger)
		return run(i)
	}), func(err error) bool {
		for _, text := range told {
			if strings.Contains(err.Error(), text) {
				return true
			}
		}
		return false
	})
	for i := range racers {
		err := run(i)
		if wins := !same && i == winner; wins != (err == nil) {
			t.Errorf("number %d once more: %v; number %d had won", i, err, winner)
		}
	}
}

// Four processes find that the wrapping keys are due: one new key for each purpose is made, and
// all use it.
func TestFourProcessesAndOneRotation(t *testing.T) {
	const racers = 4
	p := prepare(t)
	p.Edit("automatic: false", "automatic: true")
	execSQL(t, p.Installation, "UPDATE wrapping_keys SET created_at = created_at - 100 * 86400 WHERE current = 1")
	before := p.count(t, "wrapping_keys")
	hold := p.holdStore(t)
	time.AfterFunc(racers*stagger+500*time.Millisecond, hold)
	for i, err := range atOnce(racers, func(i int) error {
		time.Sleep(time.Duration(i) * stagger)
		return p.afterLogin("generate", "--identity", []string{"alice", "bob"}[i%2], "--count", "3", "--out", outFolder(p.Installation))
	}) {
		if err != nil {
			t.Errorf("number %d: %v", i, err)
		}
	}
	if made := p.count(t, "wrapping_keys") - before; made != 2 {
		t.Errorf("%d wrapping keys were made, want 2: one to seal and one to wrap", made)
	}
	if n := p.count(t, "key_packages k JOIN wrapping_keys w ON w.id = k.wrapping_key WHERE w.current = 1"); n != 3*racers {
		t.Errorf("%d key packages are under the new ones, want %d", n, 3*racers)
	}
	for _, err := range rest(p.Installation).Faults {
		t.Error(err)
	}
}

// Four processes make the first checkpoint: one makes the audit key, and all sign with it.
func TestFourProcessesAndTheFirstCheckpoint(t *testing.T) {
	const racers = 4
	p := prepare(t)
	hold := p.holdStore(t)
	time.AfterFunc(racers*stagger+500*time.Millisecond, hold)
	for i, err := range atOnce(racers, func(i int) error {
		time.Sleep(time.Duration(i) * stagger)
		return p.afterLogin("audit", "checkpoint")
	}) {
		if err != nil {
			t.Errorf("number %d: %v", i, err)
		}
	}
	if n := p.count(t, "audit_keys"); n != 1 {
		t.Errorf("there are %d audit keys, want 1", n)
	}
	p.Run("audit", "verify")
	for _, err := range rest(p.Installation).Faults {
		t.Error(err)
	}
}

// execSQL changes the store without hsm-kp.
func execSQL(t *testing.T, i *program.Installation, statement string) {
	t.Helper()
	db := database(t, i)
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// count counts the rows of a table.
func (p *prepared) count(t *testing.T, table string) (n int) {
	t.Helper()
	db := database(t, p.Installation)
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func database(t *testing.T, i *program.Installation) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(i.Dir, "hsm-kp.db")+"?mode=rw")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// stagger is the time between two logins.
const stagger = 100 * time.Millisecond

// afterLogin runs a command, and runs it again if SoftHSM refused the login: for a moment of each
// login, token.object is empty for other processes. SoftHSM 2.6.1 truncates it and releases its
// lock before it flushes what it wrote. A process that logs in then finds no token, or gets
// CKR_GENERAL_ERROR.
func (p *prepared) afterLogin(args ...string) error {
	for deadline := time.Now().Add(program.Patience); ; {
		out, err := p.Command(args...).CombinedOutput()
		switch exit, failed := errors.AsType[*exec.ExitError](err); {
		case err == nil:
			return nil
		case time.Now().Before(deadline) && failed && exit.ExitCode() == 3: // the token
			time.Sleep(stagger / 2)
		default:
			return fmt.Errorf("%w: %s", err, out)
		}
	}
}

// holdStore locks the store for writing, until the function that it returns is
// called.
func (p *prepared) holdStore(t *testing.T) (letGo func()) {
	t.Helper()
	db := database(t, p.Installation)
	db.SetMaxOpenConns(1) // the transaction lives in one connection
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() { db.Close() }
}
