package load

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// askedProvisioning is the required speed of provisioning relative to `generate`.
const askedProvisioning = 0.85

// measureProvisioning lets `hsm-kp provision` make key packages for new devices and `hsm-kp
// generate` as many, in turn, so that both run under the same conditions.
func measureProvisioning(t *testing.T, bin string, results *table) {
	database := postgrestest.Start(t, postgrestest.Options{Durable: *durable})
	on := fresh(t, bin)
	onPostgres(on, database.Database(t))
	on.Run("identity", "create", alice)
	total := *devices * *each
	var ratios []float64
	var generated, provisioned time.Duration
	for round := range *rounds {
		manifest := manifestOf(t, round)
		steps := map[bool]func(){
			false: func() { on.Run("generate", "--identity", alice, "--count", strconv.Itoa(total)) },
			true:  func() { on.Run("provision", "--manifest", manifest) },
		}
		first := round%2 == 1 // both orders
		took := map[bool]time.Duration{first: timed(steps[first])}
		took[!first] = timed(steps[!first])
		generated += took[false]
		provisioned += took[true]
		ratios = append(ratios, took[false].Seconds()/took[true].Seconds())
		t.Logf("round %d: generate %.0f/s, provision %.0f/s", round+1, float64(total)/took[false].Seconds(), float64(total)/took[true].Seconds())
	}
	ratio := median(ratios)
	all := float64(total * *rounds)
	results.add(t, figure{
		what:  fmt.Sprintf("provisioning, %d devices with %d key packages each, against generate", *devices, *each),
		asked: fmt.Sprint(askedProvisioning), ratio: fmt.Sprintf("%.2f", ratio), missed: ratio < askedProvisioning, broken: ratio < askedProvisioning/noise,
		measured: fmt.Sprintf("%.0f/s against %.0f/s", all/provisioned.Seconds(), all/generated.Seconds()),
		how:      fmt.Sprintf("hsm-kp provision --manifest …; hsm-kp generate --count %d; median of %d rounds", total, *rounds),
	})
	if made := countOf(t, on, "available"); made != 2*total**rounds {
		t.Errorf("%d key packages were made, want %d", made, 2*total**rounds)
	}
	on.Run("audit", "verify")
}

// countOf returns how many key packages are in a state.
func countOf(t *testing.T, on *program.Installation, state string) (n int) {
	t.Helper()
	var counts map[string]int
	text := on.Run("list", "--count", "--json")
	if err := json.Unmarshal(text, &counts); err != nil {
		t.Fatalf("list --count --json printed %q: %v", text, err)
	}
	return counts[state]
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// manifestOf writes a manifest of devices that no previous round had.
func manifestOf(t *testing.T, round int) string {
	t.Helper()
	var text []byte
	for i := range *devices {
		text = fmt.Appendf(text, `{"name": "device-%d-%d", "count": %d}`+"\n", round, i, *each)
	}
	path := filepath.Join(t.TempDir(), "devices.jsonl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
