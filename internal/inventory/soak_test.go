package inventory_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// soak is how long key packages are made, opened and rewrapped under faults.
var soak = flag.Duration("soak", 12*time.Second, "how long to make, open and rewrap key packages under faults")

// soaked is an inventory over a token that fails at random.
type soaked struct {
	*faulty
	tok   *token.Token
	store store.Store
	inv   *inventory.Inventory
	id    *identity.Identity

	made, opened, rotated, faults, refused atomic.Int64

	mu   sync.Mutex
	last map[string]int // refusals, by text
}

// soakRounds is the number of rounds. After each, the module is finalized: until then, SoftHSM
// keeps some 250 bytes of every destroyed session object, which hsm-kp cannot free.
const soakRounds = 4

// TestSoak makes key packages, opens Welcomes for them, and rotates, rewraps and destroys wrapping
// keys, in both custodies and on one Token, while random calls fail with random codes and sessions
// are dropped. Operations that fail in the end must say that the token was at fault. After the last
// round, memory, files and goroutines are as they were after the round before, and no sessions are
// left. Until then, memory grows by what SQLite may use for its page caches, 64 MiB (see
// store/sqlite).
func TestSoak(t *testing.T) {
	f := newFaulty(t, vault.CustodyWrapped)
	f.cfg.Sessions, f.cfg.Patience = 6, time.Minute
	db, err := sqlite.Open(t.Context(), f.copied(t), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := &soaked{faulty: f, store: db}
	begun := usageOf(t, f) // including what earlier tests have left
	var before, after usage
	for round := range soakRounds {
		s.round(t, *soak/soakRounds)
		before, after = after, usageOf(t, f)
		if round > 0 { // those that end may take a moment
			checkNoGoroutineIsLeft(t, before.goroutines)
			after.goroutines = runtime.NumGoroutine()
		}
		t.Logf("after %v: %v", *soak/soakRounds*time.Duration(round+1), after)
	}
	t.Logf("%v: %d key packages made, %d Welcomes opened, %d wrapping keys replaced, %d faults, %d operations refused for them",
		*soak, s.made.Load(), s.opened.Load(), s.rotated.Load(), s.faults.Load(), s.refused.Load())
	for text, n := range s.last {
		t.Logf("%6d times: %s", n, text)
	}
	if s.opened.Load() == 0 || s.rotated.Load() == 0 || s.faults.Load() == 0 {
		t.Error("something was not done at all")
	}
	// Readers of the store open its files when there are more of them than ever before.
	if after.sessions > 0 || after.files > before.files+6 || after.goroutines > before.goroutines {
		t.Errorf("sessions, files or goroutines have grown: %v at the end, %v a round before", after, before)
	}
	if after.resident > before.resident+16<<20 || after.resident > begun.resident+96<<20 {
		t.Errorf("memory has grown: %v at the end, %v a round before, %v at first", after, before, begun)
	}
	s.checkAll(t, db)
}

// round runs all loops for a time, on a Token of its own.
func (s *soaked) round(t *testing.T, d time.Duration) {
	t.Helper()
	s.open(t)
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	var wg sync.WaitGroup
	for range 2 {
		for _, custody := range []string{vault.CustodyWrapped, vault.CustodyToken} {
			wg.Go(func() { s.loop(ctx, t, func() error { return s.useOne(ctx, t, custody) }) })
		}
	}
	wg.Go(func() {
		s.loop(ctx, t, func() error { // in turn, because Repair would take for unfinished what another one is making
			return errors.Join(s.rotate(ctx, vault.AESGCM), s.rotate(ctx, vault.AESKeyWrap))
		})
	})
	wg.Go(func() { s.disturb(ctx, t) })
	wg.Wait()
	s.Reset()
	during := usageOf(t, s.faulty)
	t.Logf("before the module is finalized: %v", during)
	// A session whose C_CloseSession failed, as it does while the device is gone, stays open until
	// the module is finalized or all sessions are dropped, which happens at random.
	if most := 3 * s.tok.Sessions(); during.sessions > most {
		t.Errorf("%d sessions are open, want no more than %d", during.sessions, most)
	}
	if err := s.tok.Close(); err != nil {
		t.Error(err)
	}
}

// open opens the token, for a round or for the checks after the last one.
func (s *soaked) open(t *testing.T) {
	t.Helper()
	var err error
	if s.tok, err = token.Open(t.Context(), s.cfg); err != nil {
		t.Fatal(err)
	}
	s.inv = inventory.New(s.config(s.store, s.tok))
	s.id = s.identity(t)
}

func (s *soaked) identity(t *testing.T) *identity.Identity {
	t.Helper()
	k, err := s.tok.FindKeyPair(t.Context(), token.KeyQuery{ID: s.keyID})
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := ciphersuite.MarshalPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.New("alice", suite(t, 2), keypackage.BasicCredential([]byte("alice")), public, k)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// loop repeats an operation. It may fail if the token was at fault.
func (s *soaked) loop(ctx context.Context, t *testing.T, do func() error) {
	for ctx.Err() == nil {
		err := do()
		switch {
		case err == nil || ctx.Err() != nil:
		case isFault(err):
			s.refused.Add(1)
			s.note(err)
		default:
			t.Errorf("err = %v, want nil or a fault of the token", err)
			return
		}
	}
}

// note counts a refusal by its text without numbers.
func (s *soaked) note(err error) {
	text := regexp.MustCompile(`[0-9a-f]{8,}|[0-9]+`).ReplaceAllString(err.Error(), "…")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[string]int)
	}
	s.last[text]++
}

// isFault reports whether err comes from the token, or says that a key was not made or destroyed
// because of one and must be repaired.
func isFault(err error) bool {
	for _, code := range goneCodes {
		if errors.Is(err, code) {
			return true
		}
	}
	// SoftHSM returns this for a key that it was making when the login ended.
	if call, ok := errors.AsType[*token.Error](err); ok && call.Func == "C_GenerateKey" && call.RV == token.CKR_GENERAL_ERROR {
		return true
	}
	// Another operation was faster: the key was replaced meanwhile.
	return errors.Is(err, store.ErrInUse) || errors.Is(err, store.ErrWrappingKey) || errors.Is(err, token.ErrNotFound) || errors.Is(err, store.ErrState)
}

// useOne makes key packages and opens a Welcome for each.
func (s *soaked) useOne(ctx context.Context, t *testing.T, custody string) error {
	r := request(s.id, 5)
	r.Custody = custody
	var made []store.KeyPackage
	_, err := s.inv.Generate(ctx, r, func(batch []store.KeyPackage) error {
		made = append(made, batch...)
		return nil
	})
	s.made.Add(int64(len(made)))
	if err != nil {
		return err
	}
	g := welcometest.NewGroup(t, suite(t, 2))
	for i := range made {
		kp, err := inventory.Public(&made[i])
		if err != nil {
			return err
		}
		w := g.Welcome(kp)
		o, err := s.inv.OpenWelcome(ctx, inventory.WelcomeRequest{Welcome: w, Now: now, Until: now.Add(time.Hour)})
		if err != nil {
			return err
		}
		o.Clear()
		if err := s.inv.Confirm(ctx, made[i].Ref, inventory.WelcomeDigest(w), now); err != nil {
			return err
		}
		if custody == vault.CustodyToken { // the leaf's key was kept
			if err := s.inv.ConfirmLeaf(ctx, made[i].Ref, now); err != nil {
				return err
			}
		}
		s.opened.Add(1)
	}
	return nil
}

// rotate makes another wrapping key the current one, rewraps what is under the old ones, and
// destroys those.
func (s *soaked) rotate(ctx context.Context, m vault.Mechanism) error {
	if _, err := s.inv.CreateWrappingKey(ctx, m, true, now); err != nil {
		return err
	}
	s.rotated.Add(1)
	keys, err := s.store.WrappingKeys(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Purpose != inventory.PurposeOf(m) || k.Current || !k.DestroyedAt.IsZero() {
			continue
		}
		if _, err := s.inv.Rewrap(ctx, k.ID, now, func(inventory.Rewrapped) {}); err != nil {
			return err
		}
		if _, err := s.inv.DestroyWrappingKey(ctx, k.ID, false, now, nil); err != nil {
			return err
		}
	}
	if _, err := s.inv.Repair(ctx, now.Add(time.Hour), 0); err != nil {
		return err
	}
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
	return nil
}

// disturb makes calls fail.
func (s *soaked) disturb(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		s.faults.Add(1)
		switch rand.IntN(8) {
		case 0:
			s.DropSessions()
		case 1:
			s.SetDown(true)
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
			s.SetDown(false)
		default:
			s.Reset()
			s.Fail(t, tokentest.Any, 1+rand.IntN(50), 1+rand.IntN(2), goneCodes[rand.IntN(len(goneCodes))])
		}
	}
	s.SetDown(false)
}

// checkAll opens what is stored and not consumed.
func (s *soaked) checkAll(t *testing.T, db *sqlite.Store) {
	t.Helper()
	s.open(t)
	defer s.tok.Close()
	live := 0
	for record, err := range db.KeyPackages(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if record.State == store.Consumed {
			continue
		}
		live++
		mechanism := vault.AESGCM
		if record.Custody == vault.CustodyToken {
			mechanism = vault.AESKeyWrap
		}
		v, err := (ring{s.tok}).Open(t.Context(), record.WrappingKeyID, mechanism)
		if err != nil {
			t.Fatalf("the wrapping key of %x: %v", record.Ref, err)
		}
		checkOpens(t, v, &record)
	}
	t.Logf("%d key packages are not consumed, and open", live)
}

// usage is what a process uses of the machine and of the token.
type usage struct {
	resident, inGo              int64 // inGo is the part that Go uses
	sessions, files, goroutines int
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB resident, %d of them Go's, %d sessions, %d files, %d goroutines", u.resident>>20, u.inGo>>20, u.sessions, u.files, u.goroutines)
}

func usageOf(t *testing.T, f *faulty) usage {
	t.Helper()
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{pages * int64(os.Getpagesize()), int64(m.Sys - m.HeapReleased), f.Sessions(), len(files), runtime.NumGoroutine()}
}
