package load

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// alice is the identity whose key packages are claimed.
const alice = "alice"

// run measures claims.
type run struct {
	*testing.T
	*fleet
	results *table
	store   store.Store
	end     time.Time // zero for no end
	sampled int       // the most claims in a measurement of latencies
}

// measureClaims measures how long a claim takes through one service and through three, and then
// claims a million.
func measureClaims(t *testing.T, bin string, results *table, end time.Time) {
	r := &run{T: t, results: results, end: end, sampled: max(1000, *claims/20)}
	database := postgrestest.Start(t, postgrestest.Options{Durable: *durable, Dir: kept("pg"), Settings: []string{"max_connections=200", "shared_buffers=1GB", "max_wal_size=4GB"}})
	on := installed(t, bin, database)
	r.fleet = newFleet(t, on, 3, *clients)
	r.store = r.fleet.store()
	since := length(t, r.store)
	r.stock(*stored)
	r.connect()
	for _, services := range []int{1, 3} {
		closed := r.latencies(services, 0)
		r.report(services, "as quick as they can", "closed loop", closed)
		pace := *rate
		if pace == 0 {
			pace = closed.perSecond() / 2
		}
		r.report(services, fmt.Sprintf("%.0f/s, each at its time", pace), "open loop, from when each was due", r.latencies(services, pace))
	}
	r.million()
	if orphans := r.checkClaims(r.store, since); len(orphans) > 0 {
		t.Errorf("the trail has %d claims that no client learned of", len(orphans))
	}
	r.Logf("verify the audit trail")
	on.Run("audit", "verify")
}

// kept returns a folder that the next run can reuse, or an empty name.
func kept(name string) string {
	if *dir == "" {
		return ""
	}
	return filepath.Join(*dir, name)
}

// installed returns an installation whose store is in the database, with an identity: the kept one
// or a new one.
func installed(t *testing.T, bin string, database *postgrestest.Server) *program.Installation {
	t.Helper()
	if *dir == "" {
		on := fresh(t, bin)
		onPostgres(on, database.Database(t))
		on.Run("identity", "create", alice)
		return on
	}
	on := program.InstallAt(t, bin, kept("kp"))
	if !postgres.Names(urlOf(t, on)) {
		onPostgres(on, database.Database(t))
		on.Run("identity", "create", alice)
	}
	return on
}

// urlOf returns where the store is, from the config.
func urlOf(t testing.TB, on *program.Installation) string {
	t.Helper()
	c, err := config.Load(on.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	return c.Store.URL
}

// chunk is how many key packages one `generate` makes.
const chunk = 50_000

// stock makes sure that at least n key packages are available.
func (r *run) stock(n int) {
	r.Helper()
	for settled := true; ; settled = false {
		counts, err := r.store.Count(r.Context(), alice)
		if err != nil {
			r.Fatal(err)
		}
		missing := n - int(counts[store.Available])
		if missing <= 0 && settled {
			return
		}
		if missing <= 0 {
			break
		}
		if r.over() {
			r.Logf("time is up with %s of %s key packages", thousands(counts[store.Available]), thousands(n))
			break
		}
		begun := time.Now()
		made := min(missing, chunk)
		r.on.Run("generate", "--identity", alice, "--count", strconv.Itoa(made))
		r.Logf("%s of %s key packages available, %.0f a second", thousands(n-missing+made), thousands(n), float64(made)/time.Since(begun).Seconds())
	}
	for _, statement := range []string{"VACUUM ANALYZE", "CHECKPOINT"} { // pending work after the inserts
		postgrestest.Exec(r, urlOf(r, r.on), statement)
	}
}

func (r *run) over() bool { return !r.end.IsZero() && time.Now().After(r.end) }

// claimFrom returns an act that claims one key package from a service.
func (r *run) claimFrom(service func(client int) int) func(*client, int) error {
	return func(c *client, n int) error {
		answer, err := c.apis[service(n)].Claim(context.WithoutCancel(r.Context()), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: alice}))
		if err != nil {
			return err
		}
		for _, k := range answer.Msg.GetKeyPackages() {
			if !k.GetLastResort() {
				c.refs = append(c.refs, ref(k.GetRef()))
			}
		}
		return nil
	}
}

// latencies lets all clients claim for a while through some of the services.
func (r *run) latencies(services int, rate float64) measured {
	r.stock(*stored)
	p := &pace{clients: r.clients, n: r.sampled, rate: rate, until: time.Now().Add(*period)}
	m := p.drive(r.claimFrom(func(client int) int { return client % services }))
	r.check(m)
	return m
}

func (r *run) check(m measured) {
	r.Helper()
	if err := errors.Join(m.failed...); err != nil {
		r.Fatalf("Claim() err = %v, want nil", err)
	}
}

// askedP99 is the required 99th percentile of a claim's duration.
const askedP99 = 10 * time.Millisecond

func (r *run) report(services int, pace, how string, m measured) {
	plural := "s"
	if services == 1 {
		plural = ""
	}
	r.results.add(r.T, figure{
		what:  fmt.Sprintf("claim, %s stored, %d clients, %d service%s, %s", thousands(*stored), *clients, services, plural, pace),
		asked: "p99 under " + ms(askedP99), measured: m.String(),
		missed: m.quantile(0.99) >= askedP99, broken: m.quantile(0.99) >= 10*noise*askedP99, how: "Claim over mutual TLS, " + how,
	})
}

// tenths is the number of parts of the long run after which memory is measured.
const tenths = 10

// million lets all clients claim through three services, and measures the memory of each.
func (r *run) million() {
	r.stock(*claims)
	counts, err := r.store.Count(r.Context(), alice)
	if err != nil {
		r.Fatal(err)
	}
	n := min(*claims, int(counts[store.Available])) // fewer if time was up
	p := &pace{clients: r.clients, n: n, until: r.end}
	memory := r.watch(p)
	m := p.drive(r.claimFrom(func(client int) int { return client % len(r.services) }))
	r.check(m)
	twice := r.twice()
	r.results.add(r.T, figure{
		what:  fmt.Sprintf("%s claims by %d clients over three services", thousands(len(m.times)), *clients),
		asked: fmt.Sprintf("%s, none twice", thousands(*claims)), measured: fmt.Sprintf("%d twice; %v", twice, m.String()),
		missed: twice > 0 || len(m.times) < *claims, broken: twice > 0, how: "Claim over mutual TLS, closed loop",
	})
	if runtime.GOOS == "linux" {
		r.reportMemory(memory(), len(m.times))
	}
}

// twice returns how many key packages were handed out more than once.
func (r *run) twice() (n int) {
	seen := make(map[ref]bool)
	for _, c := range r.clients {
		for _, one := range c.refs {
			if seen[one] {
				n++
			}
			seen[one] = true
		}
	}
	return n
}

// watch records the memory of each service after each tenth of a run. The function that it returns
// waits for the end of the run.
func (r *run) watch(p *pace) func() [][]resident {
	stop, done := make(chan struct{}), make(chan [][]resident)
	go func() {
		var seen [][]resident
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ended := false; !ended; {
			select {
			case <-stop:
				ended = true
			case <-tick.C:
			}
			begun := int(min(p.begun.Load(), int64(p.n)))
			if begun*tenths < (len(seen)+1)*p.n {
				continue
			}
			var row []resident
			for _, pid := range r.pids() {
				row = append(row, residentOf(r, pid))
			}
			seen = append(seen, row)
			r.Logf("%s claims begun; resident %s", thousands(begun), mibOf(row))
		}
		done <- seen
	}()
	return func() [][]resident { close(stop); return <-done }
}

// mibOf formats the memory of services, and their peaks.
func mibOf(row []resident) string {
	var out []string
	for _, m := range row {
		out = append(out, fmt.Sprintf("%.0f (%.0f)", float64(m.now)/1024, float64(m.peak)/1024))
	}
	return strings.Join(out, ", ") + " MiB (most)"
}

// warmed is how many tenths of a run are ignored: connections are made, and plans and pages are
// cached.
const warmed = 3

// grown is how much more memory a service may use after the rest of a run: a tenth, and what the
// garbage collector may not have freed yet.
func grown(kib int) int { return kib/10 + 12<<10 }

// reportMemory checks how memory grew after the first tenths.
func (r *run) reportMemory(seen [][]resident, n int) {
	if len(seen) <= warmed+1 {
		r.Logf("memory: %d parts of the run were seen: too few", len(seen))
		return
	}
	for i := range r.services {
		var now []float64
		var text []string
		for _, row := range seen {
			now = append(now, float64(row[i].now))
			text = append(text, fmt.Sprintf("%.0f", float64(row[i].now)/1024))
		}
		rise := int(slope(now[warmed:]) * float64(len(now)-1-warmed))
		bad := rise > grown(int(now[warmed]))
		r.results.add(r.T, figure{
			what:  fmt.Sprintf("memory of service %d over %s claims", i+1, thousands(n)),
			asked: "flat", measured: fmt.Sprintf("%s MiB", strings.Join(text, " ")),
			ratio: fmt.Sprintf("%+.1f MiB", float64(rise)/1024), missed: bad, broken: bad, how: "VmRSS after each tenth; rise of the line through all but the first three",
		})
	}
}
