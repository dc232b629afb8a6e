package load

import (
	"flag"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// Sizes of the run. With these defaults it takes half a minute; `make load` uses the full ones.
var (
	stored   = flag.Int("load.stored", 3000, "key packages that are stored when claims are measured")
	clients  = flag.Int("load.clients", 16, "clients")
	version  = flag.Int("load.http", 1, "the version of HTTP that clients speak: 1, in which a connection has a request at a time, as each client has, or 2")
	claims   = flag.Int("load.claims", 3000, "claims of the long run over three services")
	rate     = flag.Float64("load.rate", 0, "claims a second of the open loop; 0: half of what the closed loop had")
	period   = flag.Duration("load.period", time.Second, "how long each measurement of latencies and signatures takes")
	devices  = flag.Int("load.devices", 5, "devices of a manifest")
	each     = flag.Int("load.each", 200, "key packages of a device")
	rounds   = flag.Int("load.rounds", 2, "rounds of what is compared")
	duration = flag.Duration("load.duration", 0, "when claims and what fills the store for them end, from the start; 0: when all is done")
	dir      = flag.String("load.dir", "", "a folder, with a short path, that keeps the filled store for the next run")
	durable  = flag.Bool("load.durable", false, "PostgreSQL has commits on the disk when they return, as in production")
	strict   = flag.Bool("load.strict", false, "fail where a figure misses what is asked for")
)

// TestLoad measures and prints what is required. At any speed it checks that nothing is handed out
// twice or lost, that the trail is complete, and that memory does not grow with the claims.
func TestLoad(t *testing.T) {
	t.Parallel()
	program.RequireSoftHSM(t)
	// All clients run in this one process, which must collect the garbage of all of them.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	begun := time.Now()
	bin := program.Build(t)
	results := new(table)
	defer func() { results.print(os.Stdout) }()
	t.Run("provisioning", func(t *testing.T) { measureProvisioning(t, bin, results) })
	t.Run("signatures", func(t *testing.T) { measureSignatures(t, bin, results) })
	t.Run("claims", func(t *testing.T) {
		var end time.Time
		if *duration > 0 {
			end = begun.Add(*duration)
		}
		measureClaims(t, bin, results, end)
	})
}

// fresh returns a new installation.
func fresh(t *testing.T, bin string) *program.Installation {
	t.Helper()
	return program.InstallAt(t, bin, filepath.Join(t.TempDir(), "kp"))
}
