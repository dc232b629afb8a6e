package load

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// outage is clients of all kinds at work while the database stops and starts.
type outage struct {
	*testing.T
	*fleet
	server *postgrestest.Server
	suite  *ciphersuite.Suite

	mu         sync.Mutex
	done       map[string]int // by operation
	refused    map[string]int // with REASON_STORE
	odd        []error        // errors that no client should get
	made       []ref          // key packages that were generated
	consumed   []ref          // key packages whose Welcome was opened and confirmed
	signatures int
}

// The operations that run meanwhile.
var underway = []string{"claim", "generate", "open", "confirm", "sign"}

// PostgreSQL stops in the middle of everything, as a service manager stops it and abruptly. The
// services report it in their health, in their answers and in their logs. When it is back, they
// continue without help, and nothing is lost or was handed out twice.
func TestPostgreSQLStopsAndStarts(t *testing.T) {
	t.Parallel()
	program.RequireSoftHSM(t)
	server := postgrestest.Start(t, postgrestest.Options{Durable: true, Settings: []string{"max_connections=100"}})
	on := program.Install(t)
	on.Run("identity", "create", alice)
	on.Run("generate", "--identity", alice, "--count", "200")
	onPostgres(on, server.Database(t))
	o := &outage{T: t, fleet: newFleet(t, on, 2, 13), server: server, done: map[string]int{}, refused: map[string]int{}}
	db := o.store()
	record, err := db.Identity(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	o.suite = suiteOf(t, record.Suite)
	since := length(t, db)
	crowd := o.work()
	o.goOn()
	o.stopAndStart("shut down", server.Shutdown)
	o.stopAndStart("cut off", server.Stop)
	crowd.leave()
	for _, err := range o.odd {
		t.Errorf("a caller got %v, want %v", err, hsmkpv1.Reason_REASON_STORE)
	}
	o.checkLogs()
	o.check(db, since)
	o.fleet.end()
	on.Run("audit", "verify")
	on.CheckRest(t)
}

// work lets clients claim, generate, open Welcomes, confirm them and sign.
func (o *outage) work() *crowd {
	crowd := newCrowd(o)
	for i, c := range o.clients[:len(o.clients)-1] {
		service := i % len(o.services)
		switch i % 4 {
		case 0:
			crowd.do(10*time.Millisecond, func() {
				_, err := c.claimOne(service, alice)
				o.note("claim", err)
			})
		case 1:
			crowd.do(5*time.Millisecond, func() { o.joinGroup(c, service) })
		case 2:
			crowd.do(10*time.Millisecond, func() { o.note("sign", o.signOne(c, service)) })
		default:
			crowd.do(20*time.Millisecond, func() { o.note("generate", o.generate(c, service)) })
		}
	}
	return crowd
}

// note counts the outcome of an operation.
func (o *outage) note(operation string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	reason, ok := reasonOf(err)
	switch {
	case err == nil:
		o.done[operation]++
	case ok && reason == hsmkpv1.Reason_REASON_STORE && connect.CodeOf(err) == connect.CodeUnavailable:
		o.refused[operation]++
	default:
		o.odd = append(o.odd, fmt.Errorf("%s: %w (%v)", operation, err, reason))
	}
}

// persist repeats an operation until it succeeds, as a client does after UNAVAILABLE.
func (o *outage) persist(operation string, f func() error) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		err := f()
		o.note(operation, err)
		if err == nil {
			return true
		}
	}
	o.Errorf("%s was not done in %v", operation, patience)
	return false
}

// joining is a client that is being added to a group.
type joining struct {
	*outage
	client  *client
	service int
	group   *welcometest.Group
	message []byte // with the Welcome
	claimed *hsmkpv1.KeyPackage
	opened  *hsmkpv1.OpenWelcomeResponse
}

// claimForGroup claims a key package and makes the Welcome for it, or returns nil.
func (o *outage) claimForGroup(c *client, service int) *joining {
	j := &joining{outage: o, client: c, service: service, group: welcometest.NewGroup(o, o.suite)}
	if !o.persist("claim", func() (err error) { j.claimed, err = c.claimOne(service, alice); return err }) {
		return nil
	}
	m, err := keypackage.ParseMessage(j.claimed.GetMlsMessage())
	if err != nil {
		o.Errorf("ParseMessage() err = %v, want nil", err)
		return nil
	}
	j.message = j.group.Welcome(m.KeyPackage).Message()
	return j
}

func (j *joining) open() error {
	r, err := j.client.apis[j.service].OpenWelcome(context.Background(), connect.NewRequest(&hsmkpv1.OpenWelcomeRequest{Identity: alice, Welcome: j.message}))
	if err != nil {
		return err
	}
	j.opened = r.Msg
	if !bytes.Equal(j.opened.GetJoinerSecret(), j.group.Joiner) || !bytes.Equal(j.opened.GetRef(), j.claimed.GetRef()) {
		j.Errorf("the Welcome for %x opens %x, with another secret or another key package", j.claimed.GetRef(), j.opened.GetRef())
	}
	return nil
}

func (j *joining) confirm() error {
	_, err := j.client.apis[j.service].ConfirmWelcome(context.Background(), connect.NewRequest(&hsmkpv1.ConfirmWelcomeRequest{Ref: j.claimed.GetRef(), WelcomeDigest: j.opened.GetWelcomeDigest()}))
	return err
}

// finish opens and confirms, each until it is done.
func (j *joining) finish() {
	if j.opened == nil && !j.persist("open", j.open) || !j.persist("confirm", j.confirm) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.consumed = append(j.consumed, ref(j.claimed.GetRef()))
}

// joinGroup does all of it.
func (o *outage) joinGroup(c *client, service int) {
	if j := o.claimForGroup(c, service); j != nil {
		j.finish()
	}
}

func (o *outage) signOne(c *client, service int) error {
	content := message(o.suite.ID, []byte("hello"))
	_, err := c.apis[service].SignWithLabel(context.Background(), connect.NewRequest(&hsmkpv1.SignWithLabelRequest{Identity: alice, Label: labelContent, Content: content}))
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.signatures++
	}
	return err
}

func (o *outage) generate(c *client, service int) error {
	r, err := c.apis[service].Generate(context.Background(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: alice, Count: 25}))
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range r.Msg.GetKeyPackages() {
		o.made = append(o.made, ref(k.GetRef()))
	}
	return nil
}

// eventually waits until a condition holds.
func (o *outage) eventually(what string, patience time.Duration, so func() bool) time.Duration {
	o.Helper()
	begun := time.Now()
	for !so() {
		if time.Since(begun) > patience {
			o.Fatalf("%s: not true after %v", what, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(begun)
}

// more reports whether every operation was counted more often than before.
func (o *outage) more(counts, before map[string]int, by int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(underway, func(operation string) bool { return counts[operation] < before[operation]+by })
}

func (o *outage) snapshot(counts map[string]int) map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[string]int)
	for k, n := range counts {
		out[k] = n
	}
	return out
}

// goOn waits until every operation has succeeded a few more times.
func (o *outage) goOn() time.Duration {
	o.Helper()
	before := o.snapshot(o.done)
	return o.eventually("all operations are done again", patience, func() bool { return o.more(o.done, before, 3) })
}

// recovery is how long services may take to notice that the database is gone or back. They need far
// less than a second, but machines may be busy.
const recovery = 30 * time.Second

// stopAndStart stops the database and starts it again.
func (o *outage) stopAndStart(how string, stop func() error) {
	o.Helper()
	mine := o.clients[len(o.clients)-1] // a client that is not at work
	unopened, unconfirmed := o.claimForGroup(mine, 0), o.claimForGroup(mine, 1)
	if unopened == nil || unconfirmed == nil || !o.persist("open", unconfirmed.open) {
		o.FailNow()
	}
	before := o.snapshot(o.refused)
	if err := stop(); err != nil {
		o.Fatal(err)
	}
	each := func(f func(*service) bool) func() bool {
		return func() bool { return !slices.ContainsFunc(o.services, func(s *service) bool { return !f(s) }) }
	}
	known := o.eventually(how+": nobody is ready", recovery, each(func(s *service) bool { return !o.ready(s) && bytes.Equal(o.health(s), notServing) }))
	o.note("open", unopened.open())
	o.note("confirm", unconfirmed.confirm())
	// Clients that wait for the outcome of a transaction wait for the database.
	o.eventually(how+": all are refused", recovery, func() bool { return o.more(o.refused, before, 1) })
	time.Sleep(time.Second)
	if err := o.server.Up(); err != nil {
		o.Fatal(err)
	}
	back := o.eventually(how+": all are ready again", recovery, each(func(s *service) bool { return o.ready(s) && bytes.Equal(o.health(s), serving) }))
	unopened.finish()
	unconfirmed.finish()
	again := o.goOn()
	o.Logf("%s: not ready after %v; up again, ready after %v, everything done after %v more; refused: %v", how, known.Round(time.Millisecond), back.Round(time.Millisecond), again.Round(time.Millisecond), o.snapshot(o.refused))
}

// checkLogs checks that each service logged that it was not ready, and why it refused.
func (o *outage) checkLogs() {
	o.Helper()
	for _, s := range o.services {
		all := strings.Join(s.warnings(), "")
		for _, want := range []string{`"msg":"not ready","error":"store: `, `"reason":"REASON_STORE"`, store.ErrAway.Error()} {
			if !strings.Contains(all, want) {
				o.Errorf("the log of %s has no %s", s.addr, want)
			}
		}
	}
}

// check compares what clients got with the store and its trail.
func (o *outage) check(db store.Store, since uint64) {
	o.Helper()
	orphans := o.checkClaims(db, since)
	signed := 0
	for e := range trail(o, db, since) {
		if e.Act == audit.Signed {
			signed++
		}
	}
	for what, refs := range map[string][]ref{"generated": o.made, "consumed": o.consumed} {
		for _, r := range refs {
			k, err := db.KeyPackage(o.Context(), r[:])
			if err != nil || what == "consumed" && k.State != store.Consumed {
				o.Errorf("key package %x was %s, and is %s, %v", r, what, k.State, err)
			}
		}
	}
	o.Logf("%d generated, %d claimed, %d consumed, %d signatures; done %v, refused %v", len(o.made), len(o.answered()), len(o.consumed), o.signatures, o.done, o.refused)
	if len(orphans) > 0 {
		o.Errorf("the trail has %d claims that failed according to the answers", len(orphans))
	}
	if signed != o.signatures {
		o.Errorf("the trail has %d signatures, and %d were given out", signed, o.signatures)
	}
	if len(o.consumed) == 0 || len(o.made) == 0 {
		o.Error("nothing was made or consumed: the test has shown nothing")
	}
}
