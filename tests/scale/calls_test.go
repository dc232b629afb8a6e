package scale

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

// few and many are numbers of identities in one token. What does not grow from one to the other
// does not grow.
const few, many = 10, 100

// counted is an installation whose token counts calls.
type counted struct {
	*program.Installation
	*tokentest.Module
	socket string
	next   int // the number of the next device
}

// installCounted makes an installation with one session: otherwise, chance would decide how many
// there are.
func installCounted(t *testing.T) *counted {
	t.Helper()
	i := program.Install(t)
	path, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{Installation: i, Module: tokentest.New(t, path), next: 1000}
	i.Edit(fmt.Sprintf("module: %q", path), fmt.Sprintf("module: %q", c.Module.Path))
	i.Edit("sessions: 8", "sessions: 1")
	dir, err := os.MkdirTemp("", "scale") // short: the path of a socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c.socket = filepath.Join(dir, "s")
	appendConfig(t, i, fmt.Sprintf(`
server:
  listen: ["unix:%s"]
  callers:
    local: {uids: [%d], identities: ["*"], operations: [sign_with_label]}
`, c.socket, os.Getuid()))
	return c
}

// calls returns the calls that each command makes.
func (c *counted) calls(t *testing.T) map[string]map[string]int {
	t.Helper()
	c.next++
	all := make(map[string]map[string]int)
	for name, run := range map[string]func(){
		"generate":                    func() { c.Run("generate", "--identity", device(few), "--count", "5") },
		"identity csr":                func() { c.Run("identity", "csr", device(few), "--subject", "CN=x") },
		"identity create":             func() { c.Run("identity", "create", fmt.Sprintf("other-%d", c.next)) },
		"serve":                       func() { serveOnce(t, c.Installation, c.socket) },
		"provision a new device":      func() { c.Run("provision", "--manifest", manifest(t, c.next, c.next, 5)) },
		"provision where all is done": func() { c.Run("provision", "--manifest", manifest(t, 1, few, 1)) },
		"sweep":                       func() { c.Run("sweep") },
	} {
		c.Reset()
		run()
		all[name] = c.AllCalls()
	}
	return all
}

// TestCallsDoNotGrowWithIdentities checks that commands make the same calls of the token whether
// ten identities share it or a hundred: they look up no key that they do not use, and none twice.
func TestCallsDoNotGrowWithIdentities(t *testing.T) {
	c := installCounted(t)
	c.Run("provision", "--manifest", manifest(t, 1, few, 1))
	before := c.calls(t)
	c.Run("provision", "--manifest", manifest(t, few+1, many, 1))
	for name, got := range c.calls(t) {
		if !maps.Equal(got, before[name]) {
			t.Errorf("%s: calls beside %d identities = %v, beside %d %v: want the same", name, many, got, few, before[name])
		}
		searches := map[string]int{"generate": 2, "identity csr": 2, "identity create": 1, "provision a new device": 1}[name]
		if got["C_FindObjectsInit"] != searches {
			t.Errorf("%s: %d searches, want %d: one for each key that was there and is used", name, got["C_FindObjectsInit"], searches)
		}
	}
	manyKeys(t, c)
}

// manyKeys uses the keys of all devices in one process.
func manyKeys(t *testing.T, c *counted) {
	t.Helper()
	const enough = 25 // until it is known where all keys are
	searches := many
	for try := 0; try < 3 && searches > enough; try++ { // the best of three: see token.TestManyKeysAreFoundInFewSearches
		c.Reset()
		c.Run("provision", "--manifest", manifest(t, 1, many, 2+try))
		searches = c.Calls("C_FindObjectsInit")
		if n := c.Calls("C_Sign"); n != 2*(many-1) { // the one that others made key packages of has enough
			t.Errorf("%d signatures, want %d: two for each device", n, 2*(many-1))
		}
	}
	t.Logf("%d searches for %d keys", searches, many)
	if searches > enough {
		t.Errorf("%d searches for %d keys, want at most %d", searches, many, enough)
	}
}
