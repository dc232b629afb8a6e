package operator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// generate makes key packages of an identity.
func (f *fixture) generate(t *testing.T, r GenerateRequest) {
	t.Helper()
	if _, err := f.Generate(t.Context(), r); err != nil {
		t.Fatalf("Generate(%+v) err = %v, want nil", r, err)
	}
}

// standing is what a rotation decides of an identity, without names, keys and times.
type standing struct {
	Versions []string
	Stock    []store.Stock
}

// standingOf returns the standing of an identity. It fails for versions whose keys are not in the
// token, or are not their own unless the rotation kept the key.
func (f *fixture) standingOf(t *testing.T, name string, keysKept bool) standing {
	t.Helper()
	details, err := f.Identity(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var out standing
	keys := make(map[string]bool)
	for _, v := range details.Versions {
		out.Versions = append(out.Versions, fmt.Sprintf("%d %s retired:%v certified:%v", v.Version, v.State, !v.RetiredAt.IsZero(), certified(&v)))
		f.wantSignatureKey(t, v.KeyID, true)
		keys[string(v.KeyID)] = true
	}
	if want := len(details.Versions); !keysKept && len(keys) != want {
		t.Errorf("%q has %d keys, want one for each of its %d versions", name, len(keys), want)
	}
	if _, err := f.OpenIdentity(t.Context(), &details.Identity); err != nil {
		t.Errorf("OpenIdentity(%s) err = %v, want nil", name, err)
	}
	if out.Stock, err = f.store.Stock(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out.Stock, func(a, b store.Stock) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.State, b.State), cmp.Compare(a.Custody, b.Custody), cmp.Compare(fmt.Sprint(a.LastResort), fmt.Sprint(b.LastResort)))
	})
	return out
}

// noStrays repairs what interruptions have left, and fails if the token has a signature key that
// no version of an identity has.
func (f *fixture) noStrays(t *testing.T) {
	t.Helper()
	if _, err := f.Sweep(t.Context(), SweepRequest{}); err != nil {
		t.Fatalf("Sweep() err = %v, want nil", err)
	}
	f.nothingUnfinished(t)
	all, err := f.Identities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, id := range all {
		versions, err := f.store.Versions(t.Context(), id.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions {
			known[string(v.KeyID)] = true
		}
	}
	pairs, err := f.token.KeyPairs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range pairs {
		if !known[string(pair.ID)] {
			t.Errorf("key %x, %q, is in the token, and no identity has it", pair.ID, pair.Label)
		}
	}
}

func TestRotateIdentity(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		first := f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 3})
		f.generate(t, GenerateRequest{Identity: "alice", Count: 1, LastResort: true})
		ctx := store.WithActor(t.Context(), "user:alice")
		got, err := f.RotateIdentity(ctx, RotateIdentityRequest{Identity: "alice"})
		want := RotateIdentityResult{Version: 2, Generated: 4, Retired: 4, RetiredUntil: f.clock.Now().Add(time.Duration(f.settings.KeyPackages.Grace))}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("RotateIdentity() = %+v, %v, want %+v", got, err, want)
		}
		wantStanding := standing{
			Versions: []string{"1 old retired:true certified:false", "2 current retired:false certified:false"},
			Stock: []store.Stock{
				{Version: 1, State: store.Retired, Custody: vault.CustodyWrapped, Count: 3},
				{Version: 1, State: store.Retired, LastResort: true, Custody: vault.CustodyWrapped, Count: 1},
				{Version: 2, State: store.Available, Custody: vault.CustodyWrapped, Count: 3},
				{Version: 2, State: store.Available, LastResort: true, Custody: vault.CustodyWrapped, Count: 1},
			},
		}
		if got := f.standingOf(t, "alice", false); !reflect.DeepEqual(got, wantStanding) {
			t.Errorf("alice is %+v, want %+v", got, wantStanding)
		}
		f.nothingUnfinished(t)
		switched := 0
		for _, e := range f.entries(t, "alice") {
			if e.Act == audit.Rotated && e.Actor == "user:alice" && !bytes.Equal(e.KeyID, first.KeyID) {
				switched++
			}
		}
		if switched != 1 {
			t.Errorf("the trail has %d rotations to another key, want one", switched)
		}
		if claimed, err := f.store.Claim(t.Context(), "alice", 9, f.clock.Now()); err != nil || len(claimed) != 3 || claimed[0].Version != 2 {
			t.Errorf("Claim() = %d, %v, want the three of version 2", len(claimed), err)
		}
	})
}

func TestAnInterruptedRotationIsTakenUp(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.settings.Store.Batch = 1 // each key package is stored, and retired, by itself
		fresh := func(state string) {
			f.identity(t, state)
			f.generate(t, GenerateRequest{Identity: state, Count: 2})
			f.generate(t, GenerateRequest{Identity: state, Count: 1, LastResort: true})
		}
		var last RotateIdentityResult
		rotate := func(ctx context.Context, o *Operator, state string) (err error) {
			last, err = o.RotateIdentity(ctx, RotateIdentityRequest{Identity: state})
			return err
		}
		fresh("undisturbed")
		if err := rotate(t.Context(), f.Operator, "undisturbed"); err != nil {
			t.Fatal(err)
		}
		want, wantResult := f.standingOf(t, "undisturbed", false), last
		f.interrupted(t, fresh, rotate, func(state string) {
			if got := f.standingOf(t, state, false); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: the identity is %+v, want %+v as undisturbed", state, got, want)
			}
			if !reflect.DeepEqual(last, wantResult) {
				t.Errorf("%s: the result is %+v, want %+v as undisturbed", state, last, wantResult)
			}
		})
		f.noStrays(t)
	})
}

func TestAnInterruptedRotationToACertificateIsTakenUp(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		f.trust(t, root)
		for what, next := range map[string]bool{"of the next key": true, "of the key that it has": false} {
			t.Run(what, func(t *testing.T) {
				chains := make(map[string]certificate.Chain)
				fresh := func(state string) {
					name := what + state
					f.gateway(t, name)
					if _, err := f.ImportCertificate(t.Context(), name, f.certified(t, root, RequestCertificateRequest{Identity: name})); err != nil {
						t.Fatal(err)
					}
					chains[state] = f.certified(t, root, RequestCertificateRequest{Identity: name, Next: next})
				}
				rotate := func(ctx context.Context, o *Operator, state string) error {
					result, err := o.RotateIdentity(ctx, RotateIdentityRequest{Identity: what + state, Chain: chains[state]})
					if err == nil && !reflect.DeepEqual(result.Chain.DER(), chains[state].DER()) {
						t.Errorf("%s: RotateIdentity() has another chain than it was given", state)
					}
					return err
				}
				fresh("undisturbed")
				if err := rotate(t.Context(), f.Operator, "undisturbed"); err != nil {
					t.Fatal(err)
				}
				want := f.standingOf(t, what+"undisturbed", !next)
				f.interrupted(t, fresh, rotate, func(state string) {
					if got := f.standingOf(t, what+state, !next); !reflect.DeepEqual(got, want) {
						t.Errorf("%s: the identity is %+v, want %+v as undisturbed", state, got, want)
					}
				})
			})
		}
		f.noStrays(t)
	})
}

// A rotation that was interrupted after the switch says so, and how far it is.
func TestARotationThatIsInterruptedWhileRetiring(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 5})
		slow := f.inSmallBatches(2)
		ctx, cancel := context.WithCancel(t.Context())
		retiring := slow.Reporting(onVerb{"retired", cancel})
		var interrupted *InterruptedError
		_, err := retiring.RotateIdentity(ctx, RotateIdentityRequest{Identity: "alice"})
		if !errors.As(err, &interrupted) || interrupted.Backlog.Moved != 2 || interrupted.Left != 3 || !strings.Contains(err.Error(), `identity "alice" now signs as version 2`) {
			t.Fatalf("RotateIdentity() err = %v, want 2 retired, 3 to go", err)
		}
		if claimed, err := f.store.Claim(t.Context(), "alice", 9, f.clock.Now()); err != nil || len(claimed) != 5 || claimed[0].Version != 2 {
			t.Errorf("Claim() = %d, %v, want the five of version 2", len(claimed), err)
		}
		f.clock.advance(time.Hour)
		got, err := slow.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "alice"})
		if err != nil || got.Version != 2 || got.Generated != 5 || got.Retired != 5 || !got.RetiredUntil.Equal(interrupted.Backlog.Until) {
			t.Errorf("RotateIdentity() again = %+v, %v, want the rotation to version 2 finished", got, err)
		}
		if want := `the rotation of "alice" to version 2 was interrupted: finishing it`; !slices.Contains(slow.reported.notes, want) {
			t.Errorf("notes are %q, want %q among them", slow.reported.notes, want)
		}
	})
}

// onVerb is a Report that calls f at the progress of one verb, and ignores everything else.
type onVerb struct {
	verb string
	f    func()
}

func (onVerb) Note(string) {}
func (onVerb) Warn(error)  {}
func (r onVerb) Progress(p Progress) {
	if p.Verb == r.verb {
		r.f()
	}
}

func TestHowManyAndWhatARotationMakes(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 2, Custody: vault.CustodyToken})
		if _, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "alice"}); !errors.Is(err, ErrLessCustody) {
			t.Fatalf("RotateIdentity() err = %v, want %v", err, ErrLessCustody)
		}
		none := uint64(0)
		if got, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "alice", Custody: vault.CustodyToken, Count: &none}); err != nil || got.Generated != 0 || got.Retired != 2 {
			t.Fatalf("RotateIdentity() without key packages = %+v, %v", got, err)
		}
		seven, folder := uint64(7), t.TempDir()
		got, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "alice", Custody: vault.CustodyWrapped, Count: &seven, Folder: folder})
		if err != nil || got.Version != 3 || got.Generated != 7 || got.Retired != 0 {
			t.Fatalf("RotateIdentity() with seven = %+v, %v", got, err)
		}
		if files, err := os.ReadDir(folder); err != nil || len(files) != 7 {
			t.Errorf("the folder has %d files, %v, want seven", len(files), err)
		}
		stock, err := f.store.Stock(t.Context(), "alice")
		if err != nil || !slices.Contains(stock, store.Stock{Version: 3, State: store.Published, Custody: vault.CustodyWrapped, Count: 7}) {
			t.Errorf("Stock() = %+v, %v, want seven that are published", stock, err)
		}
	})
}

func TestARefusedRotationChangesNothing(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		f.trust(t, root)
		f.identity(t, "alice")
		f.gateway(t, "gateway")
		chain := f.certified(t, root, RequestCertificateRequest{Identity: "gateway"})
		if _, err := f.ImportCertificate(t.Context(), "gateway", chain); err != nil {
			t.Fatal(err)
		}
		var request *act.RequestError
		if _, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "alice", Chain: chain}); !errors.As(err, &request) {
			t.Errorf("RotateIdentity() of a basic credential to a chain err = %v, want a RequestError", err)
		}
		if _, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "nobody"}); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("RotateIdentity(nobody) err = %v, want %v", err, ErrNoIdentity)
		}
		if _, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "gateway"}); !errors.Is(err, ErrNoChain) {
			t.Errorf("RotateIdentity() without a chain err = %v, want %v", err, ErrNoChain)
		}
		for _, name := range []string{"alice", "gateway"} {
			if versions, err := f.store.Versions(t.Context(), name); err != nil || len(versions) != 1 {
				t.Errorf("%s has %d versions, %v, want one", name, len(versions), err)
			}
		}
		f.certified(t, root, RequestCertificateRequest{Identity: "gateway", Next: true})
		if _, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "gateway", Chain: chain}); !errors.Is(err, ErrChainOfCurrent) || !errors.Is(err, store.ErrState) {
			t.Errorf("RotateIdentity() to a chain for the current key err = %v, want %v", err, ErrChainOfCurrent)
		}
	})
}

func TestRetireIdentity(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.settings.Store.Batch = 1
		fresh := func(state string) {
			f.identity(t, state)
			f.generate(t, GenerateRequest{Identity: state, Count: 2})
		}
		retire := func(ctx context.Context, o *Operator, state string) error {
			_, err := o.RetireIdentity(ctx, state)
			return err
		}
		fresh("undisturbed")
		got, err := f.RetireIdentity(t.Context(), "undisturbed")
		if want := (RetireIdentityResult{1, 2, f.clock.Now().Add(time.Duration(f.settings.KeyPackages.Grace))}); err != nil || got != want {
			t.Fatalf("RetireIdentity() = %+v, %v, want %+v", got, err, want)
		}
		if e := f.entries(t, "undisturbed"); !slices.ContainsFunc(e, func(e audit.Entry) bool { return e.Act == audit.Retired && len(e.Ref) == 0 }) {
			t.Errorf("the trail has %+v, want that the identity is retired", e)
		}
		if _, err := f.Generate(t.Context(), GenerateRequest{Identity: "undisturbed", Count: 1}); !errors.Is(err, ErrRetired) {
			t.Errorf("Generate() err = %v, want %v", err, ErrRetired)
		}
		want := f.standingOf(t, "undisturbed", false)
		f.interrupted(t, fresh, retire, func(state string) {
			if got := f.standingOf(t, state, false); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: the identity is %+v, want %+v as undisturbed", state, got, want)
			}
		})
		f.nothingUnfinished(t)
		if _, err := f.RetireIdentity(t.Context(), "nobody"); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("RetireIdentity(nobody) err = %v, want %v", err, ErrNoIdentity)
		}

		// A rotation reactivates it.
		again, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "undisturbed"})
		if err != nil || again.Version != 2 {
			t.Fatalf("RotateIdentity() of a retired one = %+v, %v, want version 2", again, err)
		}
		f.generate(t, GenerateRequest{Identity: "undisturbed", Count: 1})
	})
}

func TestDestroySignatureKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		first := f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 1})
		destroy := func(r DestroySignatureKeyRequest) (store.Identity, error) {
			r.Identity = "alice"
			return f.DestroySignatureKey(t.Context(), r)
		}
		if _, err := destroy(DestroySignatureKeyRequest{Force: true}); !errors.Is(err, store.ErrState) {
			t.Errorf("DestroySignatureKey() of the current one err = %v, want %v", err, store.ErrState)
		}
		if e := f.lastEntry(t, "alice"); e.Act != audit.Refused {
			t.Errorf("the trail says %+v, want a refusal", e)
		}
		if _, err := f.RotateIdentity(t.Context(), RotateIdentityRequest{Identity: "alice"}); err != nil {
			t.Fatal(err)
		}
		if _, err := destroy(DestroySignatureKeyRequest{Version: 1}); !errors.Is(err, store.ErrInUse) {
			t.Errorf("DestroySignatureKey() in the grace of what it signed err = %v, want %v", err, store.ErrInUse)
		}
		if _, err := destroy(DestroySignatureKeyRequest{Version: 9}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("DestroySignatureKey() of a version that is not there err = %v, want %v", err, store.ErrNotFound)
		}
		f.wantSignatureKey(t, first.KeyID, true)
		f.clock.advance(time.Duration(f.settings.KeyPackages.Grace) + time.Second)
		if _, err := f.Sweep(t.Context(), SweepRequest{}); err != nil {
			t.Fatal(err)
		}
		got, err := destroy(DestroySignatureKeyRequest{Version: 1})
		if err != nil || got.Version != 1 || !bytes.Equal(got.KeyID, first.KeyID) || !got.DestroyedAt.Equal(f.clock.Now()) {
			t.Fatalf("DestroySignatureKey() = %+v, %v, want version 1", got, err)
		}
		f.wantSignatureKey(t, first.KeyID, false)
		if _, err := f.signatureKey(t.Context(), first.KeyID, false); err == nil {
			t.Error("the operator still has the key that was destroyed")
		}
		if n, _ := f.acts(t, audit.Destroyed); n != 1 {
			t.Errorf("%d destroyed keys are in the trail, want one", n)
		}

		// The key of a retired identity, without a version; and that of a next version, which goes with it.
		if _, err := f.RequestCertificate(t.Context(), RequestCertificateRequest{Identity: "alice", Next: true}); err != nil {
			t.Fatal(err)
		}
		if got, err := destroy(DestroySignatureKeyRequest{Version: 3}); err != nil || got.State == store.Next {
			t.Errorf("DestroySignatureKey() of the next version = %+v, %v, want it given up", got, err)
		}
		if _, err := f.RetireIdentity(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if got, err := destroy(DestroySignatureKeyRequest{Force: true}); err != nil || got.Version != 2 {
			t.Errorf("DestroySignatureKey() of a retired one = %+v, %v, want version 2", got, err)
		}
		f.nothingUnfinished(t)
	})
}

func TestAnInterruptedDestructionIsRepaired(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		keys := make(map[string][]byte)
		fresh := func(state string) {
			keys[state] = f.identity(t, state).KeyID
			if _, err := f.RetireIdentity(t.Context(), state); err != nil {
				t.Fatal(err)
			}
		}
		destroy := func(ctx context.Context, o *Operator, state string) error {
			_, err := o.DestroySignatureKey(ctx, DestroySignatureKeyRequest{Identity: state})
			if errors.Is(err, store.ErrState) && o == f.Operator {
				return nil // the interrupted call has condemned it
			}
			return err
		}
		f.interrupted(t, fresh, destroy, func(state string) {
			if _, err := f.Sweep(t.Context(), SweepRequest{}); err != nil {
				t.Fatalf("Sweep() err = %v, want nil", err)
			}
			f.wantSignatureKey(t, keys[state], false)
			if v, err := f.store.Versions(t.Context(), state); err != nil || v[0].DestroyedAt.IsZero() {
				t.Errorf("%s: Versions() = %+v, %v, want the key destroyed", state, v, err)
			}
			f.nothingUnfinished(t)
		})
	})
}
