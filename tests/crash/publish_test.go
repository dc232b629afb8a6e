package crash

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// publishing is an installation with a directory.
type publishing struct {
	*program.Installation
	t      *testing.T
	server *directorytest.Server
	kind   string
}

// newPublishing makes an installation in which a sender has a key package to itself for the time
// of lease, and half of that time to send it.
func newPublishing(t *testing.T, kind string, lease time.Duration) *publishing {
	t.Helper()
	p := &publishing{program.Install(t), t, directorytest.New(program.Theirs), kind}
	t.Cleanup(p.server.Close)
	url := p.server.URL
	if kind == "http" {
		url += "/key-packages"
	}
	p.Append(fmt.Sprintf("directories:\n  - {name: main, type: %s, url: %q, timeout: %v, deadline: %[3]v, lease: %[4]v, batch: 4}", kind, url, lease/2, lease))
	p.Edit("  low: 20 ", "  low: 3 ")
	p.Edit("  high: 50 ", "  high: 6 ")
	p.Run("identity", "create", "alice")
	return p
}

// refs returns the refs in a state.
func (p *publishing) refs(state string) []string {
	p.t.Helper()
	return strings.Fields(string(p.Run("list", "--refs", "--state", state)))
}

// long is a lease that ends after every sender, however busy the machine is: expire ends the lease
// of a killed sender. For short, the tests wait.
const long, short = 4 * time.Minute, 10 * time.Second

// expire ends all leases, as the passing of time does.
func (p *publishing) expire() {
	p.t.Helper()
	execSQL(p.t, p.Installation, "UPDATE key_packages SET leased_until = 0 WHERE leased_until > 0; UPDATE leases SET until = 0")
}

// until runs a command until it succeeds: what a killed run leased is free only when the lease is
// over.
func (p *publishing) until(args ...string) {
	p.t.Helper()
	for deadline := time.Now().Add(program.Patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := p.Command(args...).CombinedOutput()
		if err != nil && time.Now().After(deadline) {
			p.t.Fatalf("%v: %v\n%s", args, err, out)
		}
		if err == nil && len(p.refs("pending")) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%v: still pending: %v", args, p.refs("pending"))
		}
	}
}

// checkTruth checks, at any time, that published key packages are in the directory, and that those
// in the directory are published or recorded as being sent.
func (p *publishing) checkTruth() {
	p.t.Helper()
	published, pending, there := p.refs("published"), p.refs("pending"), p.server.Posted()
	for _, ref := range published {
		if there[ref] == 0 {
			p.t.Errorf("%s is published, and the directory has it not", ref)
		}
	}
	for ref := range there {
		if !slices.Contains(published, ref) && !slices.Contains(pending, ref) {
			p.t.Errorf("%s is in the directory, and neither published nor pending", ref)
		}
	}
}

// checkDone checks that everything is published, complete, and, if the service can list it, once.
func (p *publishing) checkDone(n int) {
	p.t.Helper()
	p.checkTruth()
	published := p.refs("published")
	if len(published) != n || len(p.server.Posted()) != n {
		p.t.Errorf("%d are published and the directory has %d, want %d", len(published), len(p.server.Posted()), n)
	}
	for ref, times := range p.server.Posted() {
		if p.kind == "openmls" && times != 1 {
			p.t.Errorf("the service was given %s %d times, want once", ref, times)
		}
		kp, err := keypackage.Parse(p.server.Content()[ref])
		if err != nil {
			p.t.Fatal(err)
		}
		if own, err := kp.Ref(); err != nil || hex.EncodeToString(own) != ref {
			p.t.Errorf("the directory has %v under %s: %v", own, ref, err)
		}
	}
	p.Run("audit", "verify")
}

// killedBy runs a command that the directory's next fault kills, before or after the directory
// accepts something, and returns its output.
func (p *publishing) killedBy(after bool, cmd *exec.Cmd, before func()) ([]byte, error) {
	p.t.Helper()
	process := make(chan *os.Process, 1)
	before()
	p.server.Fail(directorytest.Fault{After: after, Do: func(http.ResponseWriter) {
		victim := <-process
		process <- victim
		_ = victim.Kill()
		panic(http.ErrAbortHandler)
	}})
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	process <- cmd.Process
	err := cmd.Wait()
	return out.Bytes(), err
}

// The directory kills the command, before and after it accepts something: nothing is lost, nothing
// is recorded as published that is not, and the next run does the rest.
func TestKilledWhileTheDirectoryIsAtIt(t *testing.T) {
	for _, kind := range []string{"http", "openmls"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newPublishing(t, kind, long)
			if kind == "openmls" { // for a token that was not kept, see TestKilledBeforeTheTokenIsKept
				p.Run("generate", "-i", "alice")
				p.Run("publish")
			}
			total := len(p.refs("published"))
			requests := map[string]int{"http": 6, "openmls": 2} // in one run: a batch has 4
			for request := range requests[kind] {
				for _, after := range []bool{false, true} {
					p.Generate("alice", "6")
					total += 6
					out, err := p.killedBy(after, p.Command("publish"), func() {
						for range request {
							p.server.Fail(directorytest.Fault{})
						}
					})
					p.checkTruth()
					if err == nil {
						t.Errorf("request %d, after %v: publish was not killed\n%s", request, after, out)
					}
					p.server.Unfail()
					p.expire()
					p.until("publish")
					p.checkDone(total)
				}
			}
		})
	}
}

// Killed between two of its writes to the store.
func TestKilledWhilePublishing(t *testing.T) {
	k := buildKiller(t)
	for _, kind := range []string{"http", "openmls"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newPublishing(t, kind, long)
			p.Run("generate", "-i", "alice")
			p.Run("publish")
			p.Generate("alice", "6")
			calls, _ := k.run(t, p.Command("publish"), 0)
			points := inStore(calls)
			total, killed := 7, 0
			for _, at := range points {
				p.Generate("alice", "6")
				total += 6
				if _, dead := k.run(t, p.Command("publish"), at); dead {
					killed++
				}
				p.checkTruth()
				p.expire()
				p.until("publish")
				p.checkDone(total)
			}
			t.Logf("killed %d times, at %d of %d calls", killed, len(points), len(calls))
			if killed == 0 {
				t.Error("nothing was killed: it tells nothing")
			}
		})
	}
}

// inStore returns some of the calls about the store.
func inStore(calls []string) []int {
	var points []int
	for n, call := range calls {
		if strings.Contains(call, "hsm-kp.db") {
			points = append(points, n+1)
		}
	}
	if !*every {
		points = some(points, 8)
	}
	return slices.Compact(points)
}

// A delivery service gives its token once. If the token is lost, key packages that the service
// accepted with it are known to be there, and the others are reported.
func TestKilledBeforeTheTokenIsKept(t *testing.T) {
	p := newPublishing(t, "openmls", short)
	p.Generate("alice", "3")
	if out, err := p.killedBy(true, p.Command("publish"), func() {}); err == nil {
		t.Errorf("publish was not killed\n%s", out)
	}
	p.checkTruth()
	p.until("publish")
	p.checkDone(3)
	p.Generate("alice", "1")
	out, err := p.Command("publish").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the directory already knows the client") {
		t.Errorf("publish = %v\n%s\nwant that the client is known", err, out)
	}
	p.checkTruth()
}

// Several runs at once, some killed: in the end an identity is at its high mark, and not above
// it.
func TestReplenishingAtOnce(t *testing.T) {
	p := newPublishing(t, "http", long)
	var runs []*exec.Cmd
	for range 4 {
		cmd := p.Command("replenish")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, cmd)
	}
	for _, cmd := range runs {
		if err := cmd.Wait(); err != nil {
			t.Errorf("replenish err = %v, want nil", err)
		}
	}
	p.checkDone(7) // with one of last resort
	if made := len(strings.Fields(string(p.Run("list", "--refs")))); made != 7 {
		t.Errorf("%d key packages were made, want 7", made)
	}
}
