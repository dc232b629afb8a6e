package custody

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// A device's private keys are made here, released and confirmed. They are never in the clear
// anywhere, neither here nor in the output, and after confirmation the sealed ones are gone from
// the store too.
func TestWhatIsReleasedIsNowhereInTheClear(t *testing.T) {
	for _, custody := range []string{"wrapped", byRSA} {
		for _, suite := range []int{1, 2, 5, 7} {
			t.Run(fmt.Sprint(custody, ", suite ", suite), func(t *testing.T) {
				w := newWitness(t, custody)
				device, err := program.NewDevice(suite)
				if err != nil {
					t.Fatal(err)
				}
				manifest := filepath.Join(w.safe, "devices.jsonl")
				line := fmt.Sprintf(`{"name":"tablet","suite":%d,"count":3,"last_resort":true,"custody":"release","release_key":"%s"}`,
					suite, base64.StdEncoding.EncodeToString(device.PublicKey()))
				if err := os.WriteFile(manifest, []byte(line), 0o600); err != nil {
					t.Fatal(err)
				}
				provision := []string{"provision", "--manifest", manifest, "--json", "--out", w.out}
				refs := w.learnReleased(device, w.do(provision...), 4)
				w.look("provision")
				again := w.learnReleased(device, w.do(provision...), 4)
				w.look("provision again")
				if strings.Join(refs, " ") != strings.Join(again, " ") {
					t.Errorf("again %v were handed over, want %v", again, refs)
				}
				for _, ref := range refs {
					w.refused("its private keys are its device's alone", "unwrap", ref)
				}
				w.rotateAndDestroy()
				w.learnReleased(device, w.do(provision...), 4)
				w.look("rotation of the wrapping key")

				sealed := w.sealedOf(refs[0])
				if len(sealed) == 0 {
					t.Fatal("the store has no sealed keys of what was not confirmed")
				}
				w.do(append([]string{"handover", "confirm"}, refs...)...)
				if left := w.sealedOf(refs[0]); len(left) > 0 {
					t.Errorf("the store has %d bytes of sealed keys of what was confirmed", len(left))
				}
				for _, ref := range refs {
					w.refused("it has them, and they are erased here", "unwrap", ref)
				}
				w.do("list", "--json")
				w.do("audit", "show", "--json")
				w.do("show", refs[0])
				w.look("handover confirm")
				if bytes.Contains(w.printed.Bytes(), device.PrivateKey()) {
					t.Error("the device's key, which hsm-kp cannot have, was printed")
				}
			})
		}
	}
}

// learnReleased lets the device open what was released to it, and remembers it. It returns the refs.
func (w *witness) learnReleased(device *program.Device, results []byte, n int) (refs []string) {
	w.t.Helper()
	all, err := program.ParseProvisioned(bytes.NewReader(results))
	if err != nil || len(all) != 1 || len(all[0].KeyPackages) != n {
		w.t.Fatalf("the results are %s, %v", results, err)
	}
	for _, k := range all[0].KeyPackages {
		initKey, encryptionKey, err := program.Open(device.PrivateKey(), &k)
		if err != nil {
			w.t.Fatalf("the device opens %s: err = %v, want nil", k.Ref, err)
		}
		w.learn("init key of "+k.Ref, initKey)
		w.learn("encryption key of "+k.Ref, encryptionKey)
		refs = append(refs, k.Ref)
	}
	return refs
}

// sealedOf returns the sealed private keys of a key package from the store.
func (w *witness) sealedOf(ref string) []byte {
	w.t.Helper()
	raw, err := hex.DecodeString(ref)
	if err != nil {
		w.t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(w.Dir, "hsm-kp.db")+"?mode=ro")
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	var sealed []byte
	if err := db.QueryRow("SELECT sealed FROM key_packages WHERE ref = ?", raw).Scan(&sealed); err != nil {
		w.t.Fatal(err)
	}
	return sealed
}
