package scale

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

var (
	shapes = flag.String("shapes", "", "measure provisioning of so many devices with so many key packages each, such as 50x200,500x20")
	stores = flag.String("stores", "sqlite,postgres", "the stores to measure it with")
)

// TestProvisioningAgainstGenerate prints how fast devices are provisioned, compared with generating
// for one identity and with the time that the token needs for the devices' key pairs, in one token
// and one run.
func TestProvisioningAgainstGenerate(t *testing.T) {
	if *shapes == "" {
		t.Skip("a measurement: see -shapes")
	}
	rows := [][]string{{"devices x key packages, store", "generate", "key pairs", "provision", "raw", "keys apart", "packages/s"}}
	for _, kind := range strings.Split(*stores, ",") {
		for _, shape := range strings.Split(*shapes, ",") {
			var devices, each int
			if _, err := fmt.Sscanf(shape, "%dx%d", &devices, &each); err != nil {
				t.Fatalf("-shapes %q: %v", *shapes, err)
			}
			rows = append(rows, append([]string{shape + ", " + kind}, measureProvisioning(t, kind, devices, each)...))
			table(t, "so far", rows)
		}
	}
}

// sessions is the number in the config that init writes.
const sessions = 8

func measureProvisioning(t *testing.T, kind string, devices, each int) []string {
	i := program.Install(t)
	if kind == "postgres" {
		server := postgrestest.Start(t, postgrestest.Options{Durable: true})
		config := i.Dir + "/hsm-kp.yaml"
		text, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`(?m)^  url: .*$`).ReplaceAll(text, []byte("  url: "+strconv.Quote(server.Database(t))))
		if err := os.WriteFile(config, text, 0o600); err != nil {
			t.Fatal(err)
		}
		i.Run("init")
	}
	i.Run("identity", "create", "alice")
	// One half of the other measurements comes before, one after: the machine has other work too.
	half := func(first, last int) (generate, keys time.Duration) {
		generate = timed(i, "generate", "--identity", "alice", "--count", strconv.Itoa((last-first+1)*each))
		b := openBare(t, i)
		keys = b.generate(last-first+1, sessions)
		b.close()
		return generate, keys
	}
	g1, k1 := half(1, devices/2)
	provision := timed(i, "provision", "--manifest", manifest(t, 1, devices, each), "--json")
	g2, k2 := half(devices/2+1, devices)
	start := timed(i, "generate", "--identity", "alice", "--count", "1")
	generate, keys := g1+g2-start, k1+k2 // as if both had been one process
	if n := strings.Count(string(i.Run("list", "--refs")), "\n"); n != 2*devices*each+1 {
		t.Errorf("%d key packages, want %d of alice and of the devices each", n, devices*each)
	}
	return []string{
		fmt.Sprintf("%.2f s", generate.Seconds()), fmt.Sprintf("%.2f s", keys.Seconds()), fmt.Sprintf("%.2f s", provision.Seconds()),
		fmt.Sprintf("%.2f", generate.Seconds()/provision.Seconds()), fmt.Sprintf("%.2f", (generate+keys).Seconds()/provision.Seconds()),
		fmt.Sprintf("%.0f", float64(devices*each)/provision.Seconds()),
	}
}
