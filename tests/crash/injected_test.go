package crash

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// every kills each verb at every call, except in the middle of writing a new object: see spread.
var every = flag.Bool("every", false, "kill at every call instead of at some of them")

// most is at how many of its calls a verb is killed without -every.
const most = 20

// verb is a command that is killed. The argument OUT stands for the folder of key packages.
type verb struct {
	name string
	args []string
	// over is what the command may say when it is run again, because it had done its work before it
	// was killed. If empty, it must succeed.
	over string
	// before is a command that runs first and is not killed.
	before []string
}

// verbs returns the verbs that change keys or key packages.
func (p *prepared) verbs() []verb {
	open := func(name string, more ...string) []string {
		return append(append([]string{"welcome", "open"}, more...), "WELCOME/"+p.open[name])
	}
	return []verb{
		{name: "generate", args: []string{"generate", "-i", "alice", "-n", "7", "--out", "OUT"}},
		{name: "generate in token", args: []string{"generate", "-i", "bob", "-n", "7", "--out", "OUT"}},
		{name: "open", args: open("alice")},
		{name: "open in token", args: open("bob")},
		{name: "open and consume", args: open("alice", "--consume"), over: "consumed by a Welcome"},
		{name: "open and consume in token", args: open("bob", "--consume"), over: "consumed by a Welcome"},
		{name: "confirm", args: []string{"welcome", "confirm", p.reserved["alice"]}, over: "it is consumed"},
		{name: "confirm in token", args: []string{"welcome", "confirm", p.reserved["bob"]}, over: "it is consumed"},
		{name: "rewrap", args: []string{"wrap-key", "rewrap"}},
		{name: "rotate", args: []string{"wrap-key", "rotate"}},
		{name: "rotate to wrap", args: []string{"wrap-key", "rotate", "--purpose", "wrap"}},
		{name: "rotate to RSA", args: []string{"wrap-key", "rotate", "--mechanism", "rsa-oaep"}},
		{name: "rotate to another", args: []string{"wrap-key", "rotate", "--to", p.spare}},
		{name: "destroy", args: []string{"wrap-key", "destroy", p.spare}, over: "destroyed"},
		{name: "shred", args: []string{"wrap-key", "destroy", "--shred", p.old["seal"]}, over: "destroyed"},
		{name: "shred in token", args: []string{"wrap-key", "destroy", "--shred", p.old["wrap"]}, over: "destroyed"},
		{name: "identity create", args: []string{"identity", "create", "dave"}, over: "it exists already"},
		{name: "identity rotate", args: []string{"identity", "rotate", "alice", "--out", "OUT"}},
		{name: "identity rotate in token", args: []string{"identity", "rotate", "bob", "--out", "OUT"}},
		{name: "identity retire", args: []string{"identity", "retire", "alice"}},
		{name: "identity destroy-key", args: []string{"identity", "destroy-key", "carol"}, over: "destroyed"},
		{name: "checkpoint", args: []string{"audit", "checkpoint"}},
		{name: "new audit key", args: []string{"audit", "key", "--new"}, before: []string{"audit", "checkpoint"}},
	}
}

// in inserts the folders of an installation into the arguments.
func (v verb) in(i *program.Installation) []string {
	var args []string
	for _, a := range v.args {
		if a == "OUT" {
			a = outFolder(i)
		} else if ref, ok := strings.CutPrefix(a, "WELCOME/"); ok {
			a = welcomeFile(i, ref)
		}
		args = append(args, a)
	}
	return args
}

// Each verb is killed before each of the calls by which it would change a file, or before a
// selection of them, each time in a fresh copy of the same installation. Then a sweep runs, and the
// verb again.
func TestKilledAtEachStep(t *testing.T) {
	p := prepare(t)
	k := buildKiller(t)
	for _, v := range p.verbs() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			killEach(t, k, p, v)
		})
	}
}

func killEach(t *testing.T, k killer, p *prepared, v verb) {
	if v.before != nil {
		p = p.copy(t)
		p.Run(v.before...)
		p.keepTokenObject(t)
	}
	unharmed := p.copy(t)
	calls, _ := k.run(t, unharmed.Command(v.in(unharmed.Installation)...), 0)
	unharmed.Run("audit", "verify")
	var emptied, halves int
	points := spread(calls)
	for _, at := range points {
		i := p.copy(t)
		calls, killed := k.run(t, i.Command(v.in(i.Installation)...), at)
		if killed && i.mendToken(t) {
			emptied++
		}
		r := i.recover(t, v)
		halves += r.Halves
		for _, err := range r.Faults {
			t.Errorf("killed at call %d, before %s: %v", at, strings.TrimPrefix(calls[len(calls)-1], i.Dir), err)
		}
		if err := os.RemoveAll(i.Dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("killed at %d of %d calls; token.object was empty %d times, an object half made %d times", len(points), len(calls), emptied, halves)
}

// copy copies the installation.
func (p *prepared) copy(t *testing.T) *prepared {
	t.Helper()
	c := *p
	c.Installation = p.Installation.Copy(t)
	return &c
}

// recover does what an operator does after a crash: it sweeps, runs the command again, and writes
// what is pending. After the sweep and at the end it examines the installation.
func (p *prepared) recover(t *testing.T, v verb) program.Rest {
	t.Helper()
	p.Run("sweep", "--unfinished", "0s")
	p.Run("export", "--pending", "--out", outFolder(p.Installation))
	if swept := rest(p.Installation, p.welcomeFaults); len(swept.Faults) > 0 {
		return swept
	}
	out, err := p.Command(v.in(p.Installation)...).CombinedOutput()
	if err != nil && (v.over == "" || !strings.Contains(string(out), v.over)) {
		t.Errorf("%s once more: %v\n%s", v.name, err, out)
	}
	return rest(p.Installation)
}

// spread selects the calls to kill at, numbered from 1: some of those about the store and some of
// those about objects in the token, or with -every all. SoftHSM writes a new object some thirty
// times, once for each of its attributes: the middle of these calls is left out.
func spread(calls []string) []int {
	object := func(n int) string {
		if n < 0 || n >= len(calls) || !strings.Contains(calls[n], "/tokens/") {
			return ""
		}
		_, name, _ := strings.Cut(calls[n], " ")
		return strings.TrimSuffix(name, filepath.Ext(name))
	}
	var points, others []int
	for n := range calls {
		switch {
		case object(n) == "":
			points = append(points, n+1)
		case object(n) != object(n-12) || object(n) != object(n+12):
			others = append(others, n+1)
		}
	}
	if !*every {
		points, others = some(points, most-min(len(others), most/2)), some(others, most/2)
	}
	points = append(points, others...)
	slices.Sort(points)
	return points
}

// some returns n elements of a list, evenly spread, including its first and last.
func some(list []int, n int) []int {
	if len(list) <= n {
		return list
	}
	var out []int
	for i := range n {
		out = append(out, list[i*(len(list)-1)/(n-1)])
	}
	return out
}

// Before there is a wrapping key, nothing can be stamped, but what init leaves must be found all
// the same.
func TestKilledWhileMakingTheFirstKey(t *testing.T) {
	k := buildKiller(t)
	p := &prepared{Installation: program.Install(t)}
	p.keepTokenObject(t)
	for _, pattern := range []string{"hsm-kp.db*", "tokens/*/*-*.object", "tokens/*/*-*.lock"} {
		files, err := filepath.Glob(filepath.Join(p.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	unharmed := p.copy(t)
	calls, _ := k.run(t, unharmed.Command("init"), 0)
	unharmed.CheckRest(t)
	points := spread(calls)
	for _, at := range points {
		i := p.copy(t)
		calls, killed := k.run(t, i.Command("init"), at)
		if killed {
			i.mendToken(t)
		}
		i.Run("init")
		i.Run("sweep", "--unfinished", "0s")
		for _, err := range i.Rest(intentFaults).Faults {
			t.Errorf("killed at call %d, before %s: %v", at, strings.TrimPrefix(calls[len(calls)-1], i.Dir), err)
		}
	}
	t.Logf("killed at %d of %d calls", len(points), len(calls))
}
