package load

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// killing is three processes over one PostgreSQL, one of which is killed from time to time: two
// services, and a third place in which `publish` and `replenish` run in turn.
type killing struct {
	*testing.T
	*fleet
	plain, other *directorytest.Server // by HTTP
	delivery     *directorytest.Server // the OpenMLS delivery service

	shop    sync.Mutex // held while taking from the delivery service
	mu      sync.Mutex
	odd     []error
	running *exec.Cmd // in the third place
	wanted  string    // the directory of the command that the third place must run
	turns   int
	killed  map[string]int
	runs    map[string]int // commands that ended successfully
	claimed atomic.Int64
}

// The identities; the commands handle them in the order of their names. No client claims key
// packages of the last one, so that there is always something to publish.
var people = []string{"alice", "bob", "carol", "dave", "erin"}

// anyone returns an identity whose key packages are claimed.
func anyone() string { return people[rand.IntN(len(people)-1)] }

// Marks of the delivery service.
const low, high = 6, 12

// The time that a directory may take here, however busy the machine is. A sender has a key package
// to itself for the shortest lease that this allows.
const (
	deadline = 20 * time.Second
	lease    = 2 * deadline
)

// patience limits the time of each step, for busy machines.
const patience = 3 * time.Minute

// replenishLease is how long a killed `replenish` holds an identity.
const replenishLease = time.Minute

// One of three processes is killed during claims, publishes and replenishes, again and again.
// Nothing is handed out or published twice, nothing is lost, and the others continue.
func TestOneOfThreeIsKilled(t *testing.T) {
	t.Parallel()
	program.RequireSoftHSM(t)
	k := newKilling(t)
	db := k.store()
	since := length(t, db)
	crowd := k.work()
	for round := range 3 {
		for i := range k.services {
			k.killService(i, time.Duration(rand.IntN(300))*time.Millisecond)
		}
		k.killByDirectory("plain", k.plain, round%2 == 0)
		k.killByDirectory("other", k.other, round%2 == 1)
		if round < 2 {
			k.killReplenish(round%2 == 0)
		}
		k.killAnywhere(time.Duration(rand.IntN(250)) * time.Millisecond)
	}
	last := time.Now() // when a replenish was last killed
	k.goOn("everybody goes on")
	crowd.leave()
	k.catchUp(last.Add(replenishLease))
	k.check(db, since)
	k.fleet.end()
	k.on.Run("audit", "verify")
	k.on.CheckRest(t)
}

func newKilling(t *testing.T) *killing {
	k := &killing{T: t, killed: map[string]int{}, runs: map[string]int{}}
	for _, d := range []**directorytest.Server{&k.plain, &k.other, &k.delivery} {
		*d = directorytest.New(program.Theirs)
		t.Cleanup((*d).Close)
	}
	on := program.Install(t)
	wait := fmt.Sprintf("timeout: %v, deadline: %[1]v, lease: %[2]v, batch: 4, rate: 0", deadline, lease)
	on.Append(fmt.Sprintf(`directories:
  - {name: plain, type: http, url: %[1]q, %[4]s}
  - {name: other, type: http, url: %[2]q, %[4]s}
  - {name: delivery, type: openmls, url: %[3]q, %[4]s}`, k.plain.URL+"/key-packages", k.other.URL+"/key-packages", k.delivery.URL, wait))
	on.Edit("  low: 20 ", fmt.Sprintf("  low: %d ", low))
	on.Edit("  high: 50 ", fmt.Sprintf("  high: %d ", high))
	for _, name := range people {
		on.Run("identity", "create", name)
		on.Run("generate", "--identity", name, "--count", "40")
	}
	on.Run("generate", "--identity", people[len(people)-1], "--count", "300")
	// A delivery service gives its token once; tests/crash covers a process that is killed then.
	on.Run("replenish", "--directory", "delivery")
	onPostgres(on, postgrestest.Shared(t).Database(t))
	k.fleet = newFleet(t, on, 2, 8)
	return k
}

// work lets clients claim and generate, others take from the delivery service, and the third place
// publish and replenish.
func (k *killing) work() *crowd {
	crowd := newCrowd(k)
	for i, c := range k.clients {
		service := i % 2
		crowd.do(5*time.Millisecond, func() {
			name := anyone()
			if i < 2 {
				_, err := c.apis[service].Generate(k.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: name, Count: 20}))
				k.note(c, err)
				time.Sleep(100 * time.Millisecond)
				return
			}
			_, err := c.claimOne(service, name)
			if err == nil {
				k.claimed.Add(1)
			}
			if k.note(c, err) { // this service is down; the other may be up
				service = 1 - service
			}
		})
	}
	crowd.do(50*time.Millisecond, func() {
		k.shop.Lock()
		defer k.shop.Unlock()
		k.take(people[rand.IntN(len(people))])
	})
	crowd.do(0, func() { k.thirdPlace(k.turn()) })
	return crowd
}

// turn returns the command that is next: the one that is to be killed, if there is one.
func (k *killing) turn() []string {
	directories := []string{"plain", "delivery", "other"}
	k.mu.Lock()
	defer k.mu.Unlock()
	name := k.wanted
	if name == "" {
		name = directories[k.turns%len(directories)]
		k.turns++
	}
	if name == "delivery" {
		return []string{"replenish", "--directory", name}
	}
	return []string{"publish", "--directory", name, "--count", "6"}
}

// want requests a command to a directory, or all in turn if directory is empty.
func (k *killing) want(directory string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = directory
}

// note records the outcome of a client's request, and reports whether there was no answer.
func (k *killing) note(c *client, err error) bool {
	reason, ok := reasonOf(err)
	switch {
	case err == nil || ok && reason == hsmkpv1.Reason_REASON_NONE_LEFT:
		return false
	case !ok && !connect.IsWireError(err):
		c.unanswered++ // only the client's goroutine does so
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.odd = append(k.odd, err)
	return true
}

// take takes a key package from the delivery service, as a client does that adds another to a
// group.
func (k *killing) take(name string) {
	r, err := http.Get(k.delivery.URL + "/clients/key_package/" + base64.URLEncoding.EncodeToString([]byte(name)))
	if err != nil {
		k.Error(err)
		return
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
}

// thirdPlace runs a command, which may be killed. Otherwise it must succeed.
func (k *killing) thirdPlace(args []string) {
	cmd := k.on.Command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	k.mu.Lock()
	err := cmd.Start()
	k.running = cmd
	k.mu.Unlock()
	if err == nil {
		err = cmd.Wait()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = nil
	var exit *exec.ExitError
	switch {
	case err == nil:
		k.runs[args[0]]++
	case errors.As(err, &exit) && exit.ExitCode() == -1: // by a signal
		k.killed[args[0]]++
	case strings.Contains(stderr.String(), busyToken): // the next run does it
	default:
		k.odd = append(k.odd, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.Bytes()))
	}
}

// killService kills a service after a while and restarts it; the other one continues.
func (k *killing) killService(i int, after time.Duration) {
	k.Helper()
	time.Sleep(after)
	k.services[i].stop(syscall.SIGKILL) // the status is that of the kill
	k.mu.Lock()
	k.killed["serve"]++
	k.mu.Unlock()
	before := k.claimed.Load()
	k.eventually("the other service goes on", func() bool { return k.claimed.Load() > before+10 })
	k.start(k.services[i])
}

// killByDirectory lets a directory kill the command that sends it something, before or after
// accepting that. The first requests may have other faults or none.
func (k *killing) killByDirectory(name string, d *directorytest.Server, after bool, first ...directorytest.Fault) {
	k.Helper()
	command := "publish"
	if d == k.delivery {
		command = "replenish"
	}
	k.want(name)
	defer k.want("")
	before := k.killedOf(command)
	d.Fail(first...)
	d.Fail(directorytest.Fault{After: after, Do: func(http.ResponseWriter) {
		k.kill()
		panic(http.ErrAbortHandler)
	}})
	k.eventually(command+" is killed by the directory", func() bool { return k.killedOf(command) > before })
	d.Unfail()
}

// killReplenish lets the delivery service kill `replenish` when it sends what is missing: that is
// its second request for an identity; the first asks what is there.
func (k *killing) killReplenish(after bool) {
	k.Helper()
	k.shop.Lock()
	defer k.shop.Unlock()
	for _, name := range people {
		for range high {
			k.take(name)
		}
	}
	k.killByDirectory("delivery", k.delivery, after, directorytest.Fault{})
}

// killAnywhere kills whatever runs in the third place after a while.
func (k *killing) killAnywhere(after time.Duration) {
	time.Sleep(after)
	k.kill()
}

func (k *killing) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running != nil {
		k.running.Process.Kill()
	}
}

func (k *killing) killedOf(command string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.killed[command]
}

func (k *killing) eventually(what string, so func() bool) {
	k.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.Fatalf("%s: not true after %v", what, patience)
		}
	}
}

// goOn waits until both commands have succeeded again.
func (k *killing) goOn(what string) {
	k.Helper()
	k.mu.Lock()
	before := maps.Clone(k.runs)
	k.mu.Unlock()
	k.eventually(what, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.runs["publish"] > before["publish"] && k.runs["replenish"] > before["replenish"]
	})
}

// catchUp does what the next runs from cron would do: it publishes what was being sent, and fills
// each identity to its mark.
func (k *killing) catchUp(until time.Time) {
	k.Helper()
	for deadline := until.Add(patience); ; time.Sleep(500 * time.Millisecond) {
		for _, directory := range []string{"plain", "other"} {
			k.on.Run("publish", "--directory", directory, "--count", "1")
		}
		elsewhere := strings.Contains(string(k.on.Run("replenish", "--directory", "delivery", "--json")), `"elsewhere":true`)
		if !elsewhere && countOf(k.T, k.on, "pending") == 0 {
			return
		}
		if time.Now().After(deadline) {
			k.Fatalf("something is pending, or leased, long after the last kill (leased: %v)", elsewhere)
		}
	}
}

// check compares what clients and directories have with the store and its trail.
func (k *killing) check(db store.Store, since uint64) {
	k.Helper()
	for _, err := range k.odd {
		k.Errorf("a client got %v", err)
	}
	k.checkUnanswered(k.checkClaims(db, since))
	records := make(map[string]store.KeyPackage)
	for one, err := range db.KeyPackages(k.Context(), store.Filter{}) {
		if err != nil {
			k.Fatal(err)
		}
		records[hex.EncodeToString(one.Ref)] = one
	}
	there := make(map[string]string) // the directories' key packages, by ref
	for name, d := range map[string]*directorytest.Server{"plain": k.plain, "other": k.other, "delivery": k.delivery} {
		for ref, content := range d.Content() {
			if before := there[ref]; before != "" {
				k.Errorf("%s is in %s and in %s", ref, before, name)
			}
			there[ref] = name
			k.checkPublished(ref, content, name, records)
		}
	}
	published := 0
	for ref, one := range records {
		if one.State != store.Published {
			continue
		}
		published++
		if there[ref] == "" {
			k.Errorf("%s is published, and no directory has it", ref)
		}
	}
	k.checkLevels(records)
	k.Logf("killed %v; ended well %v; %d claimed, %d published of %d", k.killed, k.runs, len(k.answered()), published, len(records))
}

// checkPublished checks that what a directory accepted is published there, with the same bytes, and
// was not handed out. A previous key package of last resort may be retired.
func (k *killing) checkPublished(ref string, content []byte, directory string, records map[string]store.KeyPackage) {
	k.Helper()
	one, ok := records[ref]
	kp, err := inventory.Public(&one)
	switch {
	case !ok || err != nil:
		k.Errorf("%s has %s, and the store has it not: %v", directory, ref, err)
	case !bytes.Equal(kp.Bytes(), content):
		k.Errorf("%s has other bytes of %s than the store", directory, ref)
	case one.Directory != directory:
		k.Errorf("%s has %s, which the store assigns to %q", directory, ref, one.Directory)
	case one.State != store.Published && !(one.LastResort && one.State == store.Retired):
		k.Errorf("%s has %s, which is %s", directory, ref, one.State)
	}
}

// checkUnanswered checks that each client had at least as many requests without an answer as the
// trail has claims of it that it did not learn of.
func (k *killing) checkUnanswered(orphans map[ref]string) {
	k.Helper()
	by := make(map[string]int)
	for _, actor := range orphans {
		by[actor]++
	}
	unanswered := 0
	for _, c := range k.clients {
		unanswered += c.unanswered
		if by[c.actor()] > c.unanswered {
			k.Errorf("%s has %d claims in the trail that it did not learn of, but only %d requests without an answer", c.uri, by[c.actor()], c.unanswered)
		}
		delete(by, c.actor())
	}
	if len(by) > 0 {
		k.Errorf("others than the clients claimed: %v", by)
	}
	if unanswered == 0 {
		k.Error("no request was without an answer: the test has shown nothing")
	}
	k.Logf("%d requests without an answer; %d key packages claimed by them", unanswered, len(orphans))
}

// checkLevels checks that the delivery service has each identity's key packages within its marks,
// and that one of last resort was published, which it hands out like the others.
func (k *killing) checkLevels(records map[string]store.KeyPackage) {
	k.Helper()
	lastResorts := make(map[string]int)
	for _, one := range records {
		if one.LastResort && one.State == store.Published {
			lastResorts[one.Identity]++
		}
	}
	for _, name := range people {
		level := len(slices.DeleteFunc(k.left(name), func(ref string) bool { return records[ref].LastResort }))
		if level < low || level > high {
			k.Errorf("the delivery service has %d key packages of %s, want %d to %d", level, name, low, high)
		}
		if lastResorts[name] != 1 {
			k.Errorf("%d key packages of last resort of %s are published, want 1", lastResorts[name], name)
		}
	}
}

// left returns the refs that the delivery service lists for a client.
func (k *killing) left(name string) (refs []string) {
	k.Helper()
	r, err := http.Get(k.delivery.URL + "/clients/key_packages/" + base64.URLEncoding.EncodeToString([]byte(name)))
	if err != nil {
		k.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		k.Fatal(err)
	}
	for ref := range k.delivery.Content() {
		raw, err := hex.DecodeString(ref)
		if err == nil && bytes.Contains(text, append([]byte{byte(len(raw))}, raw...)) {
			refs = append(refs, ref)
		}
	}
	return slices.Clip(refs)
}
