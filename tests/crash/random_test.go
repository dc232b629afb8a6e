package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// act returns a command for the present state, or nil if there is nothing to do.
type act struct {
	name string
	args func() []string
}

// refusals are errors that a command may have if it is not killed: the killed one before it had
// done the work, or the state does not allow it.
var refusals = []string{"destroyed", "it is in use", "is the current one", "consumed", "erased", "not in the state", "it exists already", "no more of its key packages", "still be used"}

// acts are the commands that the installation runs.
func (p *prepared) acts(t *testing.T) []act {
	identity := func() string { return []string{"alice", "bob"}[rand.N(2)] }
	created := 0
	return []act{
		{"generate", func() []string {
			return []string{"generate", "-i", identity(), "-n", "7", "--out", outFolder(p.Installation)}
		}},
		{"open", func() []string { return p.openOne(t) }},
		{"open --consume", func() []string {
			if open := p.openOne(t); open != nil {
				return append(open, "--consume")
			}
			return nil
		}},
		{"confirm", func() []string { return p.withOne(t, "reserved", "welcome", "confirm") }},
		{"release", func() []string { return p.withOne(t, "reserved", "welcome", "release") }},
		{"claim", func() []string { return []string{"claim", "-i", identity()} }},
		{"export", func() []string { return p.withOne(t, "available", "export", "--out", outFolder(p.Installation)) }},
		{"rotate", func() []string {
			return []string{"wrap-key", "rotate", "--purpose", []string{"seal", "wrap"}[rand.N(2)]}
		}},
		{"rewrap", func() []string { return []string{"wrap-key", "rewrap"} }},
		{"destroy", func() []string { return p.oldKey(t, "wrap-key", "destroy") }},
		{"shred", func() []string { return p.oldKey(t, "wrap-key", "destroy", "--shred") }},
		{"identity create", func() []string { created++; return []string{"identity", "create", fmt.Sprint("relay", created/2)} }},
		{"identity rotate", func() []string {
			return []string{"identity", "rotate", identity(), "-n", "3", "--out", outFolder(p.Installation)}
		}},
		{"identity destroy-key", func() []string { return p.oldVersion(t, identity()) }},
		{"checkpoint", func() []string { return []string{"audit", "checkpoint"} }},
		{"sweep", func() []string { return []string{"sweep", "--unfinished", "0s"} }},
	}
}

// withOne appends a ref in a state to a command.
func (p *prepared) withOne(t *testing.T, state string, command ...string) []string {
	t.Helper()
	refs := strings.Fields(string(p.Run("list", "--refs", "--state", state)))
	if len(refs) == 0 {
		return nil
	}
	return append(command, refs[rand.N(len(refs))])
}

// openOne makes a Welcome for a published key package.
func (p *prepared) openOne(t *testing.T) []string {
	t.Helper()
	found := p.withOne(t, "published")
	if found == nil {
		return nil
	}
	ref := found[0]
	data, err := os.ReadFile(filepath.Join(outFolder(p.Installation), ref+".mls"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := keypackage.ParseMessage(data)
	if err != nil || m.KeyPackage == nil || m.KeyPackage.CipherSuite != p.group.Suite.ID {
		t.Fatalf("ParseMessage(%s) err = %v, want a key package of suite 2", ref, err)
	}
	if err := os.WriteFile(welcomeFile(p.Installation, ref), p.group.Welcome(m.KeyPackage).Message(), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"welcome", "open", welcomeFile(p.Installation, ref)}
}

// oldKey appends a wrapping key that is not current to a command.
func (p *prepared) oldKey(t *testing.T, command ...string) []string {
	t.Helper()
	var old []string
	for line := range strings.Lines(string(p.Run("wrap-key", "list", "--json"))) {
		var k struct {
			ID    string `json:"wrapping_key_id"`
			State string `json:"state"`
		}
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatal(err)
		}
		if k.State == "kept" || k.State == "condemned" {
			old = append(old, k.ID)
		}
	}
	if len(old) == 0 {
		return nil
	}
	return append(command, old[rand.N(len(old))])
}

func (p *prepared) oldVersion(t *testing.T, name string) []string {
	t.Helper()
	var shown struct {
		Versions []struct {
			Version     uint64     `json:"version"`
			State       string     `json:"state"`
			DestroyedAt *time.Time `json:"key_destroyed_at"`
		} `json:"versions"`
	}
	if err := json.Unmarshal(p.Run("identity", "show", "--json", name), &shown); err != nil {
		t.Fatal(err)
	}
	for _, v := range shown.Versions {
		if v.State == "old" && v.DestroyedAt == nil {
			return []string{"identity", "destroy-key", name, "--force", "--version", fmt.Sprint(v.Version)}
		}
	}
	return nil
}

// killAfter runs a command and kills it after a time; zero means never. It reports whether the
// kill came before the end, and how long the command ran.
func killAfter(t *testing.T, cmd *exec.Cmd, after time.Duration) (killed bool, ran time.Duration) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	ran = time.Since(start)
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
	case failed && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true, ran
	case !slices.ContainsFunc(refusals, func(r string) bool { return strings.Contains(out.String(), r) }):
		t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	return false, ran
}

// pace is how long each kind of command takes on this machine, as it is now. The first run of a
// kind is slower than those after it, and a machine has other work at times: each run corrects
// the estimate, so that kills fall within the next run, and late in it too.
type pace map[string]time.Duration

// delay returns when to kill a command: at a random time up to a little beyond its expected end,
// or, before anything is known of its kind, never.
func (p pace) delay(name string) time.Duration {
	if expected := p[name]; expected > 0 {
		return 1 + rand.N(expected+expected/10)
	}
	return 0
}

// learn corrects the estimate. A command that ended took what it ran; one that was killed would
// have taken longer, by an unknown time.
func (p pace) learn(name string, killed bool, ran time.Duration) {
	switch expected := p[name]; {
	case expected == 0:
		p[name] = ran
	case killed:
		p[name] = max(expected, ran) + expected/20
	default:
		p[name] = (expected + ran) / 2
	}
}

// One installation survives kills at random times. Key packages that were handed out keep their
// private keys, consumed ones open nothing, and the token has what the store says.
func TestKilledAtRandomTimes(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs = 60
	}
	p := prepare(t)
	p.Edit("grace: 7d", "grace: 0s") // sweep erases what is retired: the store stays small
	acts := p.acts(t)
	known := make(pace)
	var run, killed, emptied, halves int
	enough := func() bool { return run >= runs && killed >= runs/2 }
	for !enough() {
		if run == 3*runs {
			t.Fatalf("%d of %d runs were killed, want %d: the kills come too late to tell anything", killed, run, runs/2)
		}
		a := acts[rand.N(len(acts))]
		args := a.args()
		if args == nil {
			continue
		}
		after := known.delay(a.name)
		cut, ran := killAfter(t, p.Command(args...), after)
		known.learn(a.name, cut, ran)
		if after == 0 {
			continue
		}
		run++
		if cut {
			killed++
		}
		if p.mendToken(t) {
			emptied++
		}
		p.Run("sweep", "--unfinished", "0s")
		if run%5 > 0 && !enough() {
			continue
		}
		p.Run("export", "--pending", "--out", outFolder(p.Installation))
		r := rest(p.Installation, p.welcomeFaults)
		halves = r.Halves
		for _, err := range r.Faults {
			t.Errorf("after run %d, %s: %v", run, strings.Join(args, " "), err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	p.Run("audit", "verify")
	t.Logf("of %d runs, %d were killed; token.object was empty %d times, %d objects are half made", run, killed, emptied, halves)
}
