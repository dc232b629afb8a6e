package operator

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
)

// identity creates an identity with the config's suite.
func (f *fixture) identity(t *testing.T, name string) store.Identity {
	t.Helper()
	record, err := f.CreateIdentity(t.Context(), CreateIdentityRequest{Name: name})
	if err != nil {
		t.Fatalf("CreateIdentity(%s) err = %v, want nil", name, err)
	}
	return record
}

// entries returns the trail's entries about an identity, the oldest first.
func (f *fixture) entries(t *testing.T, name string) []audit.Entry {
	t.Helper()
	var out []audit.Entry
	for stored, err := range f.store.Entries(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if e.Identity == name {
			out = append(out, e)
		}
	}
	return out
}

// lastEntry returns the last entry about an identity.
func (f *fixture) lastEntry(t *testing.T, name string) audit.Entry {
	t.Helper()
	all := f.entries(t, name)
	if len(all) == 0 {
		t.Fatalf("the trail has nothing about %q", name)
	}
	return all[len(all)-1]
}

// nothingUnfinished fails if an act has left an intent or a backlog.
func (f *fixture) nothingUnfinished(t *testing.T) {
	t.Helper()
	intents, err := f.store.Intents(t.Context())
	if err != nil || len(intents) != 0 {
		t.Errorf("Intents() = %+v, %v, want none", intents, err)
	}
	backlogs, err := f.store.Backlogs(t.Context())
	if err != nil || len(backlogs) != 0 {
		t.Errorf("Backlogs() = %+v, %v, want none", backlogs, err)
	}
}

// warned reports whether there was a warning with a text.
func (f *fixture) warned(text string) bool {
	f.reported.mu.Lock()
	defer f.reported.mu.Unlock()
	for _, w := range f.reported.warnings {
		if strings.Contains(w.Error(), text) {
			return true
		}
	}
	return false
}

func TestCreateIdentity(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		ctx := store.WithActor(t.Context(), "user:alice")
		for name, c := range map[string]struct {
			request    CreateIdentityRequest
			suite      uint16
			credential keypackage.Credential
		}{
			"alice":   {CreateIdentityRequest{}, 2, keypackage.BasicCredential([]byte("alice"))},
			"bob":     {CreateIdentityRequest{Suite: "1", Credential: "bob@example.com"}, 1, keypackage.BasicCredential([]byte("bob@example.com"))},
			"gateway": {CreateIdentityRequest{Suite: "MLS_256_DHKEMP384_AES256GCM_SHA384_P384", X509: true}, 7, keypackage.X509Credential(nil)},
			"phone":   {CreateIdentityRequest{Custody: "release"}, 2, keypackage.BasicCredential([]byte("phone"))},
		} {
			c.request.Name = name
			record, err := f.CreateIdentity(ctx, c.request)
			if err != nil {
				t.Errorf("CreateIdentity(%+v) err = %v, want nil", c.request, err)
				continue
			}
			if record.Suite != c.suite || !bytes.Equal(record.Credential, c.credential.Bytes()) || record.Custody != c.request.Custody || !record.CreatedAt.Equal(f.clock.Now()) {
				t.Errorf("CreateIdentity(%+v) = %+v", c.request, record)
			}
			details, err := f.Identity(ctx, name)
			if err != nil || len(details.Versions) != 1 || !bytes.Equal(details.KeyID, record.KeyID) || details.State != store.Current {
				t.Errorf("Identity(%s) = %+v, %v, want what was created", name, details, err)
			}
			if id, err := f.OpenIdentity(ctx, &details.Identity); err != nil || id.Name != name {
				t.Errorf("OpenIdentity(%s) = %+v, %v", name, id, err)
			}
			if e := f.lastEntry(t, name); e.Act != audit.Created || e.Actor != "user:alice" || !bytes.Equal(e.KeyID, record.KeyID) {
				t.Errorf("the trail says %+v of the creation of %s", e, name)
			}
		}
		f.nothingUnfinished(t)
		all, err := f.Identities(ctx)
		if err != nil || len(all) != 4 || all[0].Name != "alice" || all[3].Name != "phone" {
			t.Errorf("Identities() = %+v, %v, want four, by name", all, err)
		}
		if _, err := f.Identity(ctx, "nobody"); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("Identity(nobody) err = %v, want %v", err, ErrNoIdentity)
		}
	})
}

func TestARefusedIdentityLeavesNothing(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		alice := f.identity(t, "alice")
		for what, r := range map[string]CreateIdentityRequest{
			"no name":                       {},
			"a name that is no name":        {Name: " alice"},
			"an unknown suite":              {Name: "bob", Suite: "99"},
			"certificates for Ed448":        {Name: "bob", Suite: "4", X509: true},
			"two credentials":               {Name: "bob", X509: true, Credential: "bob"},
			"a key that cannot sign for it": {Name: "bob", Suite: "1", Key: token.KeyQuery{ID: alice.KeyID}},
		} {
			var refused *act.RequestError
			if _, err := f.CreateIdentity(t.Context(), r); !errors.As(err, &refused) {
				t.Errorf("CreateIdentity() with %s err = %v, want a RequestError", what, err)
			}
		}
		if _, err := f.CreateIdentity(t.Context(), CreateIdentityRequest{Name: "alice"}); !errors.Is(err, store.ErrExists) {
			t.Errorf("CreateIdentity() of a name that is taken err = %v, want %v", err, store.ErrExists)
		}
		if _, err := f.CreateIdentity(t.Context(), CreateIdentityRequest{Name: "bob", Key: token.KeyQuery{Label: "no such key"}}); !errors.Is(err, token.ErrNotFound) {
			t.Errorf("CreateIdentity() with a key that is not there err = %v, want %v", err, token.ErrNotFound)
		}
		if all, err := f.Identities(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("Identities() = %+v, %v, want alice alone", all, err)
		}
		f.nothingUnfinished(t)
	})
}

func TestAKeyInTheTokenBecomesAnIdentitys(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		alice := f.identity(t, "alice")
		twin, err := f.CreateIdentity(t.Context(), CreateIdentityRequest{Name: "twin", Key: token.KeyQuery{Label: alice.KeyLabel}})
		if err != nil || !bytes.Equal(twin.KeyID, alice.KeyID) {
			t.Fatalf("CreateIdentity() = %+v, %v, want alice's key", twin, err)
		}
		if !f.warned(`identity "alice" has the same signature key`) {
			t.Errorf("warnings are %v, want one of the shared key", f.reported.warnings)
		}
		if _, err := f.OpenIdentity(t.Context(), &twin); err != nil {
			t.Errorf("OpenIdentity(twin) err = %v, want nil", err)
		}
	})
}

// noIdentities is a store that has no room for another identity.
type noIdentities struct {
	store.Store
	keyID []byte
}

func (s *noIdentities) AddIdentity(_ context.Context, id store.Identity) error {
	s.keyID = id.KeyID
	return store.ErrFull
}

func TestAKeyThatIsNotRecordedIsDestroyed(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		full := &noIdentities{Store: f.store}
		if _, err := f.over(t, full).CreateIdentity(t.Context(), CreateIdentityRequest{Name: "alice"}); !errors.Is(err, store.ErrFull) {
			t.Fatalf("CreateIdentity() err = %v, want %v", err, store.ErrFull)
		}
		if len(full.keyID) == 0 {
			t.Fatal("no key was made")
		}
		f.wantSignatureKey(t, full.keyID, false)
		f.nothingUnfinished(t)
	})
}

// over returns an operator over another store and the fixture's token, as another process has it.
func (f *fixture) over(t *testing.T, s store.Store) *Operator {
	t.Helper()
	opened, err := f.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := f.config
	c.Store, c.OpenToken = s, func(context.Context) (*token.Token, error) { return opened, nil }
	return New(c, f.reported)
}

// Many callers create identities at once: each name once, whoever comes first.
func TestIdentitiesAreCreatedAtOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		const callers = 8
		errs := make(chan error, callers)
		for i := range callers {
			go func() {
				_, err := f.CreateIdentity(t.Context(), CreateIdentityRequest{Name: []string{"alice", "bob"}[i%2]})
				errs <- err
			}()
		}
		made := 0
		for range callers {
			select {
			case err := <-errs:
				if err == nil {
					made++
				} else if !errors.Is(err, store.ErrExists) {
					t.Errorf("CreateIdentity() err = %v, want nil or %v", err, store.ErrExists)
				}
			case <-time.After(time.Minute):
				t.Fatal("a caller still waits after a minute")
			}
		}
		if made != 2 {
			t.Errorf("%d callers made an identity, want two", made)
		}
		f.nothingUnfinished(t)
	})
}
