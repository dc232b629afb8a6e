package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// kit says how a peer is built and run. Commands run in the peer's folder.
type kit struct {
	folder string
	tool   string // the tool that builds it
	build  []string
	run    []string
}

// kits are the peers, in the order of the table.
var kits = []kit{
	{"openmls", "cargo", []string{"cargo", "build", "--locked", "--quiet"}, []string{"target/debug/openmls-peer"}},
	{"mls-rs", "cargo", []string{"cargo", "build", "--locked", "--quiet"}, []string{"target/debug/mls-rs-peer"}},
	{"ts-mls", "npm", npmCI, []string{"node", "peer.js"}},
	{"core-crypto", "npm", npmCI, []string{"node", "peer.js"}},
	{"mls-go", "go", []string{"go", "build", "-o", "../../../../bin/mls-go-peer", "."}, []string{"../../../../bin/mls-go-peer"}},
	{"bcmls", "mvn", []string{"mvn", "--batch-mode", "--quiet", "package"}, []string{"java", "-jar", "target/bcmls-peer.jar"}},
}

var npmCI = []string{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}

// command builds the peer and returns the command that runs it. If the tool is missing, it skips the test,
// or fails it under CI=true.
func (k kit) command(t *testing.T) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(k.tool); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s needs %s, and CI must have it: %v", k.folder, k.tool, err)
		}
		t.Skipf("%s needs %s: %v", k.folder, k.tool, err)
	}
	dir := filepath.Join(program.Root(), "tests", "interop", "peers", k.folder)
	build := exec.Command(k.build[0], k.build[1:]...)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", k.folder, err, out)
	}
	name := k.run[0]
	if filepath.Base(name) != name {
		name = filepath.Join(dir, name)
	}
	run := exec.Command(name, k.run[1:]...)
	run.Dir = dir
	return run
}
