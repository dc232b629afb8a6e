package operator

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/enroll"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// publicKey returns the public key of a new HPKE key pair on P-256, in base64.
func publicKey(t *testing.T) string {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
}

// lines parses a manifest of JSON lines.
func lines(t *testing.T, text ...string) []manifest.Line {
	t.Helper()
	out, err := manifest.ParseJSONLines(strings.NewReader(strings.Join(text, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// provision runs a request, and returns the results by the names of devices. It fails if they do
// not come in the order of the lines.
func (f *fixture) provision(t *testing.T, r ProvisionRequest) (map[string]*Provisioned, ProvisionResult, error) {
	t.Helper()
	byName := make(map[string]*Provisioned)
	next := 0
	r.Each = func(d *Provisioned) error {
		if d.Name != r.Lines[next].Name || d.Line != r.Lines[next].Number {
			t.Errorf("result %d is that of line %d, %s, want that of %s", next, d.Line, d.Name, r.Lines[next].Name)
		}
		next++
		byName[d.Name] = d
		return nil
	}
	result, err := f.Provision(t.Context(), r)
	if next != result.Done() {
		t.Errorf("Provision() counts %d results, %d came", result.Done(), next)
	}
	return byName, result, err
}

// custodiesOf counts the key packages of a result by custody.
func custodiesOf(d *Provisioned) map[string]int {
	out := make(map[string]int)
	for _, k := range d.KeyPackages {
		out[k.Custody]++
	}
	return out
}

// refsOf returns the refs of a result's key packages, sorted.
func refsOf(d *Provisioned) []string {
	var out []string
	for _, k := range d.KeyPackages {
		out = append(out, k.Ref.String())
	}
	slices.Sort(out)
	return out
}

func mixed(t *testing.T) []manifest.Line {
	return lines(t,
		`{"name":"laptop","count":3,"last_resort":true,"labels":{"site":"Bern"}}`,
		`{"name":"sensor","count":2,"custody":"token","identity":"sensor@example.com"}`,
		`{"name":"phone","custody":"device","init_key":"`+publicKey(t)+`","encryption_key":"`+publicKey(t)+`"}`,
		`{"name":"tablet","count":2,"custody":"release","release_key":"`+publicKey(t)+`"}`,
		`{"name":"gateway","credential":"x509","dns_names":["gw.example.com"]}`,
	)
}

func TestProvisionDevicesOfAllCustodies(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		r := ProvisionRequest{Lines: mixed(t), HandOver: true}
		got, result, err := f.provision(t, r)
		if want := (ProvisionResult{Ready: 4, Awaiting: 1, Made: 4 + 2 + 1 + 2}); err != nil || result != want {
			t.Fatalf("Provision() = %+v, %v, want %+v", result, err, want)
		}
		for name, want := range map[string]map[string]int{
			"laptop": {vault.CustodyWrapped: 4}, "sensor": {vault.CustodyToken: 2}, "phone": {vault.CustodyDevice: 1}, "tablet": {vault.CustodyRelease: 2}, "gateway": {},
		} {
			d := got[name]
			if custodies := custodiesOf(d); !reflect.DeepEqual(custodies, want) || d.Err != nil || d.Suite != 2 || len(d.KeyID) == 0 {
				t.Errorf("%s is %+v with %v, want %v", name, d, custodies, want)
			}
			for _, k := range d.KeyPackages {
				record, err := f.store.KeyPackage(t.Context(), k.Ref)
				if err != nil || record.Identity != name || record.State != k.State || record.LastResort != k.LastResort || !record.NotAfter.Equal(k.NotAfter) {
					t.Errorf("the store has %+v, %v, of %+v", record, err, k)
				}
				if handedOver := !record.HandedOverAt.IsZero(); handedOver != (name == "tablet") || (k.Released != nil) != handedOver || (len(k.Message) > 0) != handedOver {
					t.Errorf("%s: handed over is %v, and the result %+v", name, handedOver, k)
				}
			}
		}
		if got["laptop"].Labels["site"] != "Bern" {
			t.Errorf("labels are %v, want those of the line", got["laptop"].Labels)
		}
		gateway := got["gateway"]
		if csr := parseRequest(t, CertificateRequested{PEM: gateway.Request}); gateway.Status != DeviceAwaiting || !slices.Equal(csr.DNSNames, []string{"gw.example.com"}) {
			t.Errorf("gateway is %+v, want a request for its certificate", gateway)
		}
		if n, _ := f.acts(t, audit.HandedOver); n != 2 {
			t.Errorf("%d handovers are in the trail, want two", n)
		}
		f.nothingUnfinished(t)

		// Nothing is made again. Keys that the device has not confirmed are handed over again.
		again, result, err := f.provision(t, r)
		if want := (ProvisionResult{Ready: 4, Awaiting: 1}); err != nil || result != want {
			t.Fatalf("Provision() again = %+v, %v, want %+v", result, err, want)
		}
		for name, d := range again {
			if !slices.Equal(refsOf(d), refsOf(got[name])) {
				t.Errorf("%s has %v, want %v as before", name, refsOf(d), refsOf(got[name]))
			}
		}
		for _, k := range again["tablet"].KeyPackages {
			if k.Released == nil || k.Confirmed {
				t.Errorf("tablet gets %+v, want its private keys again", k)
			}
		}
	})
}

func TestPrivateKeysWaitUntilSomebodyIsTold(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		r := ProvisionRequest{Lines: mixed(t)}
		got, result, err := f.provision(t, r)
		if err != nil || result.Waiting != 2 || got["tablet"].Waiting != 2 || got["tablet"].KeyPackages[0].Released != nil {
			t.Fatalf("Provision() = %+v, %v, and tablet %+v, want two that wait", result, err, got["tablet"])
		}
		if n, _ := f.acts(t, audit.HandedOver); n != 0 {
			t.Errorf("%d handovers are in the trail, want none", n)
		}
		var refs [][]byte
		for _, k := range got["tablet"].KeyPackages {
			refs = append(refs, k.Ref)
		}
		if _, err := f.ConfirmHandovers(t.Context(), refs); !errors.Is(err, ErrNotHandedOver) {
			t.Errorf("ConfirmHandovers() err = %v, want %v", err, ErrNotHandedOver)
		}
	})
}

func TestConfirmHandovers(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.settings.Store.Batch = 2
		manifest := lines(t, `{"name":"tablet","count":5,"custody":"release","release_key":"`+publicKey(t)+`"}`)
		got, _, err := f.provision(t, ProvisionRequest{Lines: manifest, HandOver: true})
		if err != nil {
			t.Fatal(err)
		}
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 1})
		var own []byte
		for k, err := range f.store.KeyPackages(t.Context(), store.Filter{Identity: "alice"}) {
			if own = k.Ref; err != nil {
				t.Fatal(err)
			}
		}
		var refs [][]byte
		for _, k := range got["tablet"].KeyPackages {
			refs = append(refs, k.Ref)
		}

		// If one cannot be confirmed, none is.
		for what, bad := range map[string][]byte{"of nobody": bytes.Repeat([]byte{7}, 32), "not of custody release": own} {
			if _, err := f.ConfirmHandovers(t.Context(), append(slices.Clone(refs), bad)); !errors.Is(err, ErrNotHandedOver) && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("ConfirmHandovers() with a key package %s err = %v, want a refusal", what, err)
			}
		}
		if n, _ := f.acts(t, audit.Confirmed); n != 0 {
			t.Fatalf("%d are confirmed, want none", n)
		}

		// Cut off at each call, and called again: the result counts what is left.
		for k := int64(0); ; k++ {
			s := &cut{Store: f.store}
			s.left.Store(k)
			done, err := f.over(t, s).ConfirmHandovers(t.Context(), refs)
			if err == nil {
				if done.Confirmed+done.Before != 5 {
					t.Errorf("ConfirmHandovers() = %+v, want five in all", done)
				}
				break
			}
			if !errors.Is(err, errCut) {
				t.Fatalf("ConfirmHandovers() err = %v, want %v", err, errCut)
			}
		}
		if done, err := f.ConfirmHandovers(t.Context(), refs); err != nil || done != (ConfirmHandoversResult{0, 5}) {
			t.Errorf("ConfirmHandovers() again = %+v, %v, want five before", done, err)
		}
		if n, _ := f.acts(t, audit.Confirmed); n != 5 {
			t.Errorf("%d confirmations are in the trail, want five", n)
		}
		for _, ref := range refs {
			if k, err := f.store.KeyPackage(t.Context(), ref); err != nil || len(k.Sealed) != 0 || k.ConfirmedAt.IsZero() {
				t.Errorf("the store has %+v, %v, want it confirmed and erased", k, err)
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.ConfirmHandovers(ended, nil); err != nil {
			t.Errorf("ConfirmHandovers() of nothing err = %v, want nil", err)
		}
		again, result, err := f.provision(t, ProvisionRequest{Lines: manifest, HandOver: true})
		if err != nil || result.Made != 0 || len(again["tablet"].KeyPackages) != 5 {
			t.Fatalf("Provision() = %+v, %v, want the same five", result, err)
		}
		for _, k := range again["tablet"].KeyPackages {
			if !k.Confirmed || k.Released != nil {
				t.Errorf("tablet gets %+v, want it confirmed", k)
			}
		}
	})
}

func TestAnInterruptedProvisioningIsTakenUp(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.settings.Store.Batch = 1
		manifests := make(map[string][]manifest.Line)
		fresh := func(state string) {
			manifests[state] = lines(t,
				`{"name":"a `+state+`","last_resort":true}`,
				`{"name":"b `+state+`","custody":"release","release_key":"`+publicKey(t)+`"}`,
				`{"name":"c `+state+`","custody":"device","init_key":"`+publicKey(t)+`","encryption_key":"`+publicKey(t)+`"}`,
			)
		}
		provision := func(ctx context.Context, o *Operator, state string) error {
			_, err := o.Provision(ctx, ProvisionRequest{Lines: manifests[state], HandOver: true, Parallel: 1, Each: func(*Provisioned) error { return nil }})
			return err
		}
		f.interrupted(t, fresh, provision, func(state string) {
			got, _, err := f.provision(t, ProvisionRequest{Lines: manifests[state], HandOver: true})
			if err != nil {
				t.Fatalf("%s: Provision() err = %v, want nil", state, err)
			}
			for device, want := range map[string][]store.Stock{
				"a": {{Version: 1, State: store.Available, Custody: vault.CustodyWrapped, Count: 1}, {Version: 1, State: store.Available, LastResort: true, Custody: vault.CustodyWrapped, Count: 1}},
				"b": {{Version: 1, State: store.Available, Custody: vault.CustodyRelease, Count: 1}},
				"c": {{Version: 1, State: store.Available, Custody: vault.CustodyDevice, Count: 1}},
			} {
				name := device + " " + state
				if d := got[name]; d.Status != DeviceReady || d.Made != 0 {
					t.Errorf("%s is %+v, want it ready, with nothing left to make", name, d)
				}
				if standing := f.standingOf(t, name, false); !reflect.DeepEqual(standing.Stock, want) || len(standing.Versions) != 1 {
					t.Errorf("%s is %+v, want %+v as undisturbed", name, standing, want)
				}
			}
			if k := got["b "+state].KeyPackages; len(k) != 1 || k[0].Released == nil {
				t.Errorf("b %s gets %+v, want its private keys", state, k)
			}
		})
		f.noStrays(t)
	})
}

// A failure of one device does not stop the others, and leaves no useless identity.
func TestFaultsOfSingleDevices(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		f.trust(t, root)
		initKey, releaseKey := publicKey(t), publicKey(t)
		first := lines(t,
			`{"name":"suite"}`, `{"name":"credential"}`, `{"name":"named"}`, `{"name":"retired"}`,
			`{"name":"released","custody":"release","release_key":"`+releaseKey+`"}`,
			`{"name":"reused","custody":"device","init_key":"`+initKey+`","encryption_key":"`+publicKey(t)+`"}`,
		)
		if _, result, err := f.provision(t, ProvisionRequest{Lines: first, HandOver: true}); err != nil || result.Ready != len(first) {
			t.Fatalf("Provision() = %+v, %v", result, err)
		}
		if _, err := f.RetireIdentity(t.Context(), "retired"); err != nil {
			t.Fatal(err)
		}
		strangers := certificate.Chain{root.Issue(t, certificatetest.NewKey(t).Public()), root.Certificate}
		request := ProvisionRequest{
			Lines: lines(t,
				`{"name":"before"}`,
				`{"name":"suite","suite":1}`,
				`{"name":"credential","credential":"x509"}`,
				`{"name":"named","identity":"somebody else"}`,
				`{"name":"retired"}`,
				`{"name":"released","custody":"release","release_key":"`+publicKey(t)+`"}`,
				`{"name":"reused","custody":"device","init_key":"`+initKey+`","encryption_key":"`+publicKey(t)+`"}`,
				`{"name":"kept","suite":1,"custody":"token"}`,
				`{"name":"stranger","credential":"x509","certificate":"stranger.pem"}`,
				`{"name":"unreadable","credential":"x509","certificate":"unreadable.pem"}`,
				`{"name":"after"}`,
			),
			Chain: func(name string) (certificate.Chain, error) {
				if name == "stranger.pem" {
					return strangers, nil
				}
				return nil, fmt.Errorf("%s: %w", name, certificate.ErrMalformed)
			},
		}
		got, result, err := f.provision(t, request)
		if !errors.Is(err, ErrDevices) || result.Ready != 2 || result.Failed != 9 {
			t.Errorf("Provision() = %+v, %v, want nine that failed and %v", result, err, ErrDevices)
		}
		var wrongChain *identity.ChainError
		for name, fits := range map[string]func(error) bool{
			"suite":      func(err error) bool { return errors.Is(err, ErrOtherDevice) },
			"credential": func(err error) bool { return errors.Is(err, ErrOtherDevice) },
			"named":      func(err error) bool { return errors.Is(err, ErrOtherDevice) },
			"retired":    func(err error) bool { return errors.Is(err, ErrRetired) },
			"released":   func(err error) bool { return errors.Is(err, store.ErrOtherRelease) },
			"reused":     func(err error) bool { return strings.Contains(err.Error(), "has the same init_key") },
			"kept":       func(err error) bool { return errors.Is(err, vault.ErrCustody) },
			"stranger":   func(err error) bool { return errors.As(err, &wrongChain) },
			"unreadable": func(err error) bool { return errors.Is(err, certificate.ErrMalformed) },
		} {
			if d := got[name]; d.Status != DeviceFailed || d.Err == nil || !fits(d.Err) {
				t.Errorf("%s is %s, err = %v", name, d.Status, d.Err)
			}
		}
		if _, err := f.Identity(t.Context(), "kept"); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("Identity(kept) err = %v, want %v", err, ErrNoIdentity)
		}
		request.Chain = nil
		if got, _, _ := f.provision(t, request); got["stranger"].Status != DeviceFailed {
			t.Errorf("stranger is %+v, want it failed: nobody reads its file", got["stranger"])
		}
		f.nothingUnfinished(t)
	})
}

func TestAManifestIsCheckedAsAWhole(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		key := publicKey(t)
		r := ProvisionRequest{Lines: lines(t,
			`{"name":"good"}`,
			`{"name":" bad"}`,
			`{"name":"suite","suite":"99"}`,
			`{"name":"curve","suite":1,"custody":"release","release_key":"`+key+`"}`,
			`{"name":"same","custody":"device","init_key":"`+key+`","encryption_key":"`+key+`"}`,
			`{"name":"ed448","suite":4,"credential":"x509"}`,
			`{"name":"dns","credential":"x509","dns_names":["https://example.com"]}`,
		)}
		_, result, err := f.provision(t, r)
		var faults *manifest.Error
		if !errors.As(err, &faults) || result.Done() != 0 {
			t.Fatalf("Provision() = %+v, %v, want a *manifest.Error", result, err)
		}
		var at []int
		for _, fault := range faults.Faults {
			at = append(at, fault.Line)
		}
		if want := []int{2, 3, 4, 5, 6, 7}; !slices.Equal(at, want) {
			t.Errorf("lines %v are at fault, want %v: %v", at, want, err)
		}
		if all, err := f.Identities(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("Identities() = %+v, %v, want none", all, err)
		}
	})
}

// A certificate comes from the line's file, when it exists, or from the enrollment command.
func TestDevicesAreCertified(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		f.trust(t, root)
		files := make(map[string]certificate.Chain)
		r := ProvisionRequest{
			Lines: lines(t, `{"name":"file","credential":"x509","certificate":"file.pem"}`, `{"name":"command","credential":"x509"}`),
			Chain: func(name string) (certificate.Chain, error) {
				if chain, ok := files[name]; ok {
					return chain, nil
				}
				return nil, fs.ErrNotExist
			},
		}
		got, result, err := f.provision(t, r)
		if err != nil || result.Awaiting != 2 {
			t.Fatalf("Provision() = %+v, %v, want two that await their certificates", result, err)
		}
		issue := func(name string) certificate.Chain {
			csr := parseRequest(t, CertificateRequested{PEM: got[name].Request})
			return certificate.Chain{root.Issue(t, csr.PublicKey), root.Certificate}
		}
		files["file.pem"] = issue("file")
		answer := filepath.Join(t.TempDir(), "answer.pem")
		var text []byte
		for _, c := range issue("command") {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		if err := os.WriteFile(answer, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f.settings.X509.Enroll.Timeout = 60e9
		f.settings.X509.Enroll.Command = []string{"sh", "-c", `test "$HSM_KP_DEVICE" = command && grep -q "CERTIFICATE REQUEST" && cat "$0"`, answer}
		got, result, err = f.provision(t, r)
		if err != nil || result.Ready != 2 || result.Made != 2 {
			t.Fatalf("Provision() = %+v, %v, want two that are ready: %v, %v", result, err, got["file"].Err, got["command"].Err)
		}
		for name, d := range got {
			details, err := f.Identity(t.Context(), name)
			if err != nil || !certified(&details.Identity) || !d.ValidUntil.Equal(time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("%s is %+v, %v, want it certified until 2060", name, d, err)
			}
		}
		f.settings.X509.Enroll.Command = []string{"sh", "-c", "echo not you >&2; exit 7"}
		r.Lines = append(r.Lines, lines(t, `{"name":"other","credential":"x509"}`)...)
		got, result, err = f.provision(t, r)
		if d := got["other"]; !errors.Is(err, ErrDevices) || result.Ready != 2 || !errors.Is(d.Err, enroll.ErrFailed) || !strings.Contains(d.Err.Error(), "not you") {
			t.Errorf("Provision() = %+v, %v, and other %+v, want %v", result, err, d, enroll.ErrFailed)
		}
	})
}

func TestProvisionToAFolder(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		folder := t.TempDir()
		got, result, err := f.provision(t, ProvisionRequest{Lines: lines(t, `{"name":"a","count":2}`, `{"name":"b"}`), Folder: folder})
		if err != nil || result.Made != 3 {
			t.Fatalf("Provision() = %+v, %v, want three", result, err)
		}
		for _, d := range got {
			for _, k := range d.KeyPackages {
				record, err := f.store.KeyPackage(t.Context(), k.Ref)
				if err != nil || record.State != store.Published || k.State != store.Published {
					t.Errorf("the store has %+v, %v, of %+v, want it published", record, err, k)
				}
				if _, err := os.Stat(filepath.Join(folder, filepath.Base(k.File))); k.File == "" || err != nil {
					t.Errorf("the file of %+v: %v", k, err)
				}
			}
		}
		again, _, err := f.provision(t, ProvisionRequest{Lines: lines(t, `{"name":"b"}`), Folder: folder})
		if err != nil || again["b"].Made != 0 || again["b"].KeyPackages[0].File != "" {
			t.Errorf("Provision() again = %+v, %v, want nothing new", again["b"], err)
		}
	})
}

// An error of Each or of the store ends the run; so does the end of the context, and then the error
// says how far the run is. The next run does the rest.
func TestWhatEndsARun(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		var text []string
		for i := range 12 {
			text = append(text, fmt.Sprintf(`{"name":"device-%02d"}`, i))
		}
		r := ProvisionRequest{Lines: lines(t, text...)}
		s := &cut{Store: f.store}
		s.left.Store(40)
		given := 0
		r.Each = func(d *Provisioned) error {
			given++
			if d.Status == DeviceFailed {
				t.Errorf("%s failed: %v", d.Name, d.Err)
			}
			return nil
		}
		if result, err := f.over(t, s).Provision(t.Context(), r); !errors.Is(err, store.ErrAway) || result.Done() != given {
			t.Errorf("Provision() = %+v, %v, want %v", result, err, store.ErrAway)
		}

		nobody := errors.New("nobody reads")
		r.Each = func(*Provisioned) error { return nobody }
		if result, err := f.Provision(t.Context(), r); !errors.Is(err, nobody) || result.Done() != 1 {
			t.Errorf("Provision() = %+v, %v, want %v after one", result, err, nobody)
		}

		ctx, cancel := context.WithCancel(t.Context())
		given = 0
		r.Each = func(*Provisioned) error {
			if given++; given == 3 {
				cancel()
			}
			return nil
		}
		result, err := f.Provision(ctx, r)
		if want := fmt.Sprintf("%d of 12 devices are done", given); !errors.Is(err, ErrPartial) || result.Done() != given || !strings.Contains(err.Error(), want) {
			t.Errorf("Provision() = %+v, %v, want %v and %q", result, err, ErrPartial, want)
		}
		got, result, err := f.provision(t, r)
		if err != nil || result.Ready != 12 {
			t.Errorf("Provision() = %+v, %v, want twelve that are ready", result, err)
		}
		for name, d := range got {
			if d.Status != DeviceReady || len(d.KeyPackages) != 1 {
				t.Errorf("%s is %+v, want it ready with one key package", name, d)
			}
		}
	})
}

// A key package counts until it expires, even if it was used.
func TestUsedKeyPackagesCount(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		r := ProvisionRequest{Lines: lines(t, `{"name":"a","count":2}`)}
		if _, _, err := f.provision(t, r); err != nil {
			t.Fatal(err)
		}
		if claimed, err := f.store.Claim(t.Context(), "a", 1, f.clock.Now()); err != nil || len(claimed) != 1 {
			t.Fatalf("Claim() = %d, %v", len(claimed), err)
		}
		if got, _, err := f.provision(t, r); err != nil || got["a"].Made != 0 || len(got["a"].KeyPackages) != 2 {
			t.Errorf("a is %+v, %v, want nothing made", got["a"], err)
		}
		f.clock.advance(time.Duration(f.settings.KeyPackages.Lifetime) + time.Hour)
		if got, _, err := f.provision(t, r); err != nil || got["a"].Made != 2 || len(got["a"].KeyPackages) != 2 {
			t.Errorf("a is %+v, %v, want two new ones for those that expired", got["a"], err)
		}
	})
}
