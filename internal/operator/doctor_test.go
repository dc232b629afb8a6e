package operator

import (
	"errors"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/diagnosis"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// diagnose returns what Diagnose found.
func (f *fixture) diagnose(t *testing.T) *diagnosis.Diagnosis {
	t.Helper()
	d, err := f.Diagnose(t.Context())
	if err != nil {
		t.Fatalf("Diagnose() err = %v, want nil", err)
	}
	return d
}

func TestDiagnoseTriesEveryKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.stock(t, "alice", vault.CustodyWrapped, 1)
		f.stock(t, "bob", vault.CustodyToken, 1)
		f.checkpoint(t)
		before := len(f.trail(t, TrailRequest{}))
		d := f.diagnose(t)
		var objects []string
		for _, k := range d.Keys {
			objects = append(objects, k.Object)
			if !k.OK || k.Attributes == nil || k.Attributes.NeverExtractable == nil || !*k.Attributes.NeverExtractable {
				t.Errorf("%s %x: ok %v, %s, attributes %+v, want one that works and was never extractable", k.Object, k.ID, k.OK, k.Reason, k.Attributes)
			}
		}
		slices.Sort(objects)
		if want := []string{"audit key", "sealing key", "signature key", "signature key", "wrapping key"}; !slices.Equal(objects, want) {
			t.Errorf("keys = %q, want %q", objects, want)
		}
		for _, s := range d.Suites {
			if !s.Served {
				t.Errorf("%v is not served: %s", s.Suite, s.Reason)
			}
		}
		if err := d.Fault(); err != nil || len(d.Unknown) != 0 {
			t.Errorf("Fault() = %v, %d unknown objects, want neither", err, len(d.Unknown))
		}
		if after := len(f.trail(t, TrailRequest{})); after != before {
			t.Errorf("the trail has %d entries, want %d as before", after, before)
		}
	})
}

func TestDiagnoseFindsWhatIsAtFault(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.stock(t, "alice", vault.CustodyWrapped, 1)
		record, err := f.record(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.token.DestroyByID(t.Context(), record.KeyID, token.ClassPrivateKey, token.ClassPublicKey); err != nil {
			t.Fatal(err)
		}
		stray, err := signer.Generate(t.Context(), f.token, ciphersuite.ED25519, nil, "hsm-kp identity nobody")
		if err != nil {
			t.Fatal(err)
		}
		d := f.diagnose(t)
		for _, k := range d.Keys {
			if want := k.Object != "signature key"; k.OK != want || (k.Reason == "") != want {
				t.Errorf("%s %s: ok %v, %q, want ok %v", k.Object, k.Name, k.OK, k.Reason, want)
			}
		}
		if err := d.Fault(); !errors.Is(err, diagnosis.ErrKeyFault) {
			t.Errorf("Fault() = %v, want %v", err, diagnosis.ErrKeyFault)
		}
		if len(d.Unknown) == 0 || slices.ContainsFunc(d.Unknown, func(o token.ObjectInfo) bool { return string(o.ID) != string(stray.ID()) }) {
			t.Errorf("unknown objects = %+v, want those of %x alone", d.Unknown, stray.ID())
		}
	})
}

// Without a store, only the token is examined.
func TestDiagnoseWithoutAStore(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		d, err := f.over(t, nil).Diagnose(t.Context())
		if err != nil {
			t.Fatalf("Diagnose() err = %v, want nil", err)
		}
		if len(d.Suites) != len(ciphersuite.All()) || len(d.Probes) == 0 || len(d.Keys) != 0 {
			t.Errorf("Diagnose() = %d suites, %d probes, %d keys, want all suites, probes and no keys", len(d.Suites), len(d.Probes), len(d.Keys))
		}
		if err := (&diagnosis.Diagnosis{}).Fault(); !errors.Is(err, diagnosis.ErrNoSuite) {
			t.Errorf("Fault() of a token that serves nothing = %v, want %v", err, diagnosis.ErrNoSuite)
		}
	})
}
