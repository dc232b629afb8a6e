package crash

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// If a run is killed between recording a handover and printing it, the next run hands the same
// private keys over again, to the same device, and makes no new ones.
func TestKilledWhileHandingOver(t *testing.T) {
	i := program.Install(t)
	device, manifest := devices(t, 8)
	for range 5 {
		before := countOf(t, i, handedOver)
		cmd := i.Command("provision", "--manifest", manifest, "--json", "--parallel", "1")
		cmd.Stdout = fullPipe(t) // it cannot print
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, i, handedOver, before+1)
		time.Sleep(rand.N(20 * time.Millisecond))
		kill(t, cmd)
	}
	opened := openAll(t, device, i.Run("provision", "--manifest", manifest, "--json"))
	if len(opened) != 24 {
		t.Errorf("%d key packages were handed over, want 24", len(opened))
	}
	refs := strings.Fields(string(i.Run("list", "--refs")))
	if len(refs) != 24 {
		t.Errorf("%d key packages were made, want 24", len(refs))
	}
	for _, ref := range refs {
		if !opened[ref] {
			t.Errorf("%s was made, and not handed over by the last run", ref)
		}
	}
	if handed := countOf(t, i, handedOver); handed <= 24 {
		t.Errorf("the trail has %d handovers, want those of the runs that were killed too", handed)
	}
	i.CheckRest(t)
}

// A killed confirmation has erased the keys of complete key packages, or none; the next one does the rest.
func TestKilledWhileConfirming(t *testing.T) {
	i := program.Install(t)
	i.Edit("batch: 500", "batch: 2")
	device, manifest := devices(t, 20)
	results := i.Run("provision", "--manifest", manifest, "--json")
	if opened := openAll(t, device, results); len(opened) != 60 {
		t.Fatalf("%d were handed over, want 60", len(opened))
	}
	file := filepath.Join(t.TempDir(), "results.jsonl")
	if err := os.WriteFile(file, results, 0o600); err != nil {
		t.Fatal(err)
	}
	between, left := 0, 60
	for range 12 {
		cmd := i.Command("handover", "confirm", "--results", file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, i, confirmed, 61-left)
		time.Sleep(rand.N(10 * time.Millisecond))
		kill(t, cmd)
		left = unconfirmed(t, i)
		if left > 0 && left < 60 {
			between++
		}
		if left%2 != 0 {
			t.Errorf("%d are left, of batches of two", left)
		}
		i.CheckRest(t) // key packages have private keys until they are confirmed
		if left == 0 {
			break
		}
		// The rest is handed over again, and nothing else.
		if opened := openAll(t, device, i.Run("provision", "--manifest", manifest, "--json")); len(opened) != left {
			t.Errorf("%d were handed over again, want the %d that are left", len(opened), left)
		}
	}
	t.Logf("%d times a part was confirmed", between)
	var done struct {
		Confirmed int `json:"confirmed"`
		Before    int `json:"confirmed_before"`
	}
	if err := json.Unmarshal(i.Run("handover", "confirm", "--results", file, "--json"), &done); err != nil || done.Confirmed != left || done.Confirmed+done.Before != 60 {
		t.Errorf("the last confirmation says %+v, %v, and %d were left", done, err, left)
	}
	if n := countOf(t, i, confirmed); n != 60 || unconfirmed(t, i) != 0 {
		t.Errorf("%d were confirmed, want 60, each once", n)
	}
	i.CheckRest(t)
}

// devices writes a manifest of n lines with three key packages each, all for one device.
func devices(t *testing.T, n int) (device *program.Device, manifest string) {
	t.Helper()
	device, err := program.NewDevice(2)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for k := range n {
		fmt.Fprintf(&lines, `{"name":"device-%d","count":3,"custody":"release","release_key":"%s"}`+"\n", k, base64.StdEncoding.EncodeToString(device.PublicKey()))
	}
	manifest = filepath.Join(t.TempDir(), "devices.jsonl")
	if err := os.WriteFile(manifest, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return device, manifest
}

// openAll opens everything that results hand over, and returns the refs.
func openAll(t *testing.T, device *program.Device, results []byte) map[string]bool {
	t.Helper()
	all, err := program.ParseProvisioned(bytes.NewReader(results))
	if err != nil {
		t.Fatal(err)
	}
	opened := make(map[string]bool)
	for _, one := range all {
		for _, k := range one.KeyPackages {
			if k.Released == nil {
				continue
			}
			if _, _, err := program.Open(device.PrivateKey(), &k); err != nil {
				t.Errorf("the device opens %s: err = %v, want nil", k.Ref, err)
			}
			opened[k.Ref] = true
		}
	}
	return opened
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.Exited()) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
}

func unconfirmed(t *testing.T, i *program.Installation) int {
	t.Helper()
	return strings.Count(string(i.Run("list", "--unconfirmed", "--refs")), "\n")
}

// acts returns how many entries of an act the trail has.
func acts(act string) string {
	return "SELECT count(*) FROM audit WHERE instr(entry, CAST('" + act + "' AS BLOB)) > 0"
}

var handedOver, confirmed = acts("handed-over"), acts("confirmed")

func countOf(t *testing.T, i *program.Installation, query string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(i.Dir, "hsm-kp.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// waitUntil waits for the trail to have n entries of an act. SoftHSM's login comes first: see waitWhile.
func waitUntil(t *testing.T, i *program.Installation, act string, n int) {
	t.Helper()
	for deadline := time.Now().Add(program.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if countOf(t, i, act) >= n {
			return
		}
	}
	t.Fatalf("there are not %d after %v", n, program.Patience)
}
