package observe

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/server"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
)

// at is the time of the tests.
var at = time.Unix(1_800_000_000, 0).UTC()

// asked is a store that counts the surveys of its pools, and can be made unreachable.
type asked struct {
	*sqlite.Store
	surveys atomic.Int32
	away    atomic.Bool
}

func (a *asked) Pools(ctx context.Context, before ...time.Time) ([]store.Pool, error) {
	a.surveys.Add(1)
	if a.away.Load() {
		return nil, store.ErrAway
	}
	return a.Store.Pools(ctx, before...)
}

// still is an idle token.
type still struct{}

func (still) Usage() token.Usage {
	return token.Usage{Open: true, Limit: 8, InUse: 1, Idle: 2}
}

func (still) Info() token.Info { return token.Info{Label: "mls", LoginRequired: true} }

// seen is an Observer with what it observes.
type seen struct {
	*Observer
	store *asked
	clock atomic.Int64 // seconds since at
}

// watch returns an Observer of an empty store that shows at most so many identities one by one.
func watch(t testing.TB, identities int) *seen {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), sqlite.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &seen{store: &asked{Store: db}}
	now := func() time.Time { return at.Add(time.Duration(w.clock.Load()) * time.Second) }
	if err := db.AddWrappingKey(t.Context(), store.WrappingKey{ID: []byte("k1"), Purpose: store.Seal, Current: true, CreatedAt: at.Add(-91 * day)}); err != nil {
		t.Fatal(err)
	}
	w.Observer, err = New(Config{
		Events: NewEvents(now), Store: w.store, Token: still{}, Ready: func(context.Context) error { return nil }, Busy: func() (int, int) { return 1, 256 },
		Low: func(string) int { return 3 }, Ending: 14 * day, Schedule: inventory.Schedule{MaxAge: 90 * day},
		Identities: identities, Interval: 15 * time.Second, Version: "1.2.3", Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		db.Close()
	})
	return w
}

// add adds an identity with key packages that end after the given numbers of days.
func (w *seen) add(t testing.TB, name string, ends ...int) {
	t.Helper()
	credential := keypackage.Credential{Type: keypackage.CredentialBasic, Identity: []byte(name)}
	err := w.store.AddIdentity(t.Context(), store.Identity{Name: name, Suite: 2, Credential: credential.Bytes(), KeyID: []byte(name), CreatedAt: at})
	if err != nil {
		t.Fatal(err)
	}
	var batch []store.KeyPackage
	for i, d := range ends {
		batch = append(batch, store.KeyPackage{
			Ref: fmt.Appendf(nil, "%s %d", name, i), Identity: name, Version: 1, Suite: 2, State: store.Available, Custody: "wrapped", WrappingKeyID: []byte("k1"),
			Sealed: []byte("sealed"), Public: []byte("public"), CreatedAt: at, NotBefore: at, NotAfter: at.Add(time.Duration(d)*day + time.Hour),
		})
	}
	if err := w.store.AddKeyPackages(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// happen reports one event of each kind.
func (w *seen) happen() {
	w.Events.Call(token.Call{Func: "C_Sign", Took: 3 * time.Millisecond})
	w.Events.Call(token.Call{Func: "C_Sign", RV: token.CKR_DEVICE_ERROR, Took: time.Millisecond})
	w.Events.Recover(token.Recovery{Step: token.StepLogin})
	w.Events.Request(server.Request{Operation: act.Claim, Rule: "app", Code: "ok", Took: time.Millisecond})
	w.Events.Request(server.Request{Operation: act.Claim, Code: "permission_denied", Reason: "not_granted", Refused: true})
}
