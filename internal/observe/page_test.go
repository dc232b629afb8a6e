package observe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
)

// get sends a request to the listeners' handler, as over a Unix socket.
func (w *seen) get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRecorder()
	w.Handler().ServeHTTP(r, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return r
}

func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("the page does not have %q:\n%s", p, text)
		}
	}
}

func TestThePageOfNothing(t *testing.T) {
	w := watch(t, 10)
	r := w.get(t, "/status")
	if r.Code != http.StatusOK {
		t.Fatalf("status %d", r.Code)
	}
	wantAll(t, r.Body.String(), "There are no identities yet", "Nothing is available or published", "No requests in the last 5 minutes", ">Ready<")
}

func TestThePageOfThree(t *testing.T) {
	w := watch(t, 10)
	w.add(t, "filled", 20, 20, 20, 100)
	w.add(t, "short", 20)
	w.add(t, "none")
	w.happen()
	text := w.get(t, "/status").Body.String()
	wantAll(t, text, "2 of 3", `<td class="n level">4</td>`, "low mark 3", "Later: 1 available", "C_Sign", "CKR_DEVICE_ERROR", "claim", "not granted", `<span class="badge low">due</span>`)
	none, short, filled := strings.Index(text, ">none<"), strings.Index(text, ">short<"), strings.Index(text, ">filled<")
	if none < 0 || none > short || short > filled {
		t.Errorf("none, short and filled are at %d, %d, %d: want the lowest first", none, short, filled)
	}
	if strings.Contains(text, "<script") || strings.Contains(text, " style=") || strings.Contains(text, "ZgotmplZ") {
		t.Errorf("the page has a script, a style of its own or what the template refused:\n%s", text)
	}
}

func TestThePageOfTenThousand(t *testing.T) {
	v := &survey{At: at}
	for i := range 10_000 {
		id := identity{Name: fmt.Sprintf("device-%05d", i), Suite: 2, Low: 20, Level: uint64(20 + i%30)}
		if i%1000 == 0 {
			id.Level = uint64(i / 1000)
		}
		v.Identities = append(v.Identities, id)
	}
	l := levelsOf(v, at)
	if len(l.Rows) != maxRows || l.More != 10_000-maxRows || l.MoreLeast != 20 || l.Short != 10 || l.MoreShort != 0 {
		t.Errorf("%d rows, %d more from %d on, %d short, %d of these without a row", len(l.Rows), l.More, l.MoreLeast, l.Short, l.MoreShort)
	}
	if first := l.Rows[0]; first.Name != "device-00000" || first.State != "empty" {
		t.Errorf("the first row is %s, %s", first.Name, first.State)
	}
}

func TestANameIsNoMarkup(t *testing.T) {
	w := watch(t, 10)
	w.add(t, `<script>alert(1)</script>"><img src=x>`, 20)
	text := w.get(t, "/status").Body.String()
	if strings.Contains(text, "<script>") || strings.Contains(text, "<img") {
		t.Errorf("the name is markup:\n%s", text)
	}
}

// What a token reports about itself need not be UTF-8.
func TestBytesThatAreNoTextAreShown(t *testing.T) {
	w := watch(t, 10)
	w.Observer.Config.Token = odd{}
	for path, want := range map[string]string{"/metrics": "hsm_kp_token_info{firmware=\"\",label=\"mls\uFFFD\"", "/status": "mls\uFFFD"} {
		if r := w.get(t, path); r.Code != http.StatusOK || !strings.Contains(r.Body.String(), want) {
			t.Errorf("%s: %d, want %s in\n%s", path, r.Code, want, r.Body)
		}
	}
}

// odd is a token whose label is not UTF-8.
type odd struct{ still }

func (odd) Info() token.Info { return token.Info{Label: "mls\xff"} }

func TestAPageIsKeptByNobodyAndLoadsNothing(t *testing.T) {
	w := watch(t, 10)
	for _, path := range []string{"/status", "/metrics", "/healthz"} {
		h := w.get(t, path).Header()
		policy := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, policy)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
	if r := w.get(t, "/"); r.Code != http.StatusSeeOther || r.Header().Get("Location") != "/status" {
		t.Errorf("/ is %d to %q", r.Code, r.Header().Get("Location"))
	}
	if r := w.get(t, "/debug/pprof/"); r.Code != http.StatusNotFound {
		t.Errorf("another path: %d, want 404", r.Code)
	}
	if text := w.get(t, "/status").Body.String(); !strings.Contains(text, `http-equiv="refresh"`) {
		t.Error("the page is not asked for again")
	}
	if text := w.get(t, "/status?pause").Body.String(); strings.Contains(text, `http-equiv="refresh"`) {
		t.Error("the page is asked for again in a pause")
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	w := watch(t, 10)
	w.add(t, "alice", 20)
	w.get(t, "/status")
	w.store.away.Store(true)
	w.Observer.Config.Token = gone{}
	w.ready.f = func(context.Context) (time.Time, error) {
		return time.Time{}, errors.New("open /var/lib/token: PIN 1234 is wrong")
	}
	w.clock.Add(1000)
	text := w.get(t, "/status").Body.String()
	wantAll(t, text, "Not ready", "The store does not answer", "given up", ">alice<")
	if strings.Contains(text, "PIN") || strings.Contains(text, "/var/lib") {
		t.Errorf("the page has the error's text:\n%s", text)
	}
	if r := w.get(t, "/readyz"); r.Code != http.StatusServiceUnavailable || r.Body.String() != "not ready\n" {
		t.Errorf("/readyz: %d %q", r.Code, r.Body)
	}
	if r := w.get(t, "/healthz"); r.Code != http.StatusOK {
		t.Errorf("/healthz: %d", r.Code)
	}
}

// gone is a token that is given up.
type gone struct{ still }

func (gone) Usage() token.Usage { return token.Usage{Over: true} }

// serve serves on a listener until the test ends.
func (w *seen) serve(t *testing.T, l net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, w.Handler(), l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherNameOfThisMachineIsRefused(t *testing.T) {
	w := watch(t, 10)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for host, want := range map[string]int{
		"127.0.0.1:" + port: http.StatusOK, "localhost:" + port: http.StatusOK, "[::1]:" + port: http.StatusOK, "localhost": http.StatusOK,
		"evil.example:" + port: http.StatusMisdirectedRequest, "127.0.0.1.evil.example": http.StatusMisdirectedRequest, "10.0.0.1:" + port: http.StatusMisdirectedRequest,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("host %s: %d, want %d", host, answer.StatusCode, want)
		}
	}
}

func TestNobodyElseIsServed(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Serve(t.Context(), http.NotFoundHandler(), l); !errors.Is(err, errFar) {
		t.Errorf("Serve() on every address: %v, want %v", err, errFar)
	}
}

func TestAValueThatIsNotMadeInTimeIsTheOneBefore(t *testing.T) {
	hang := make(chan struct{})
	n := 0
	c := &cached[int]{base: t.Context(), every: time.Hour, limit: time.Minute, now: time.Now, f: func(context.Context) (int, error) {
		if n++; n > 1 {
			<-hang
		}
		return n, nil
	}}
	if got := c.get(t.Context()); got.value != 1 {
		t.Fatalf("get() = %d, want 1", got.value)
	}
	c.due = time.Time{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got := c.get(ctx); got.value != 1 {
		t.Errorf("get() while it hangs = %d, want 1", got.value)
	}
	close(hang)
	c.wait()
	if got := c.get(t.Context()); got.value != 2 {
		t.Errorf("get() afterwards = %d, want 2", got.value)
	}
}

func TestQuantiles(t *testing.T) {
	w := new(window)
	for range 99 {
		w.add(at, "a", 2*time.Millisecond, false)
	}
	w.add(at, "a", 3*time.Second, true)
	sum := w.sum(at.Add(windowMinutes*time.Minute - time.Minute))
	if len(sum) != 1 || sum[0].N != 100 || sum[0].Failed != 1 {
		t.Fatalf("sum() = %+v", sum)
	}
	for q, most := range map[float64]time.Duration{0.5: 2500 * time.Microsecond, 0.99: 2500 * time.Microsecond, 1: 5 * time.Second} {
		if got := sum[0].quantile(q); got > most || got <= most/3 {
			t.Errorf("quantile(%v) = %v, want up to %v", q, got, most)
		}
	}
	if late := w.sum(at.Add(windowMinutes * time.Minute)); len(late) != 0 {
		t.Errorf("after %d minutes there is %+v", windowMinutes, late)
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(1234567): "1,234,567",
		took(800 * time.Nanosecond): "0 µs", took(250 * time.Microsecond): "250 µs", took(1500 * time.Microsecond): "1.5 ms", took(20 * time.Millisecond): "20 ms", took(2 * time.Second): "2.0 s",
		until(at, at.Add(3*day)): "in 3 d", until(at, at.Add(-30*time.Hour)): "30 h ago", until(at, at.Add(90*time.Minute)): "in 90 min", until(at, at.Add(5*time.Second)): "in 5 s",
		shortSuite(2): "2 · P256", shortSuite(0xF123): "0xF123",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for n, want := range map[uint64]uint64{0: 4, 4: 4, 5: 8, 40: 40, 41: 60, 55: 60, 61: 80, 1_000_000: 1_000_000, 1_000_001: 1_200_000} {
		if got := niceTop(n); got != want {
			t.Errorf("niceTop(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestColumnsStandOnEachOther(t *testing.T) {
	e := endingsOf(&survey{At: at, Endings: []store.Ending{
		{State: store.Available, Span: 0, Count: 10}, {State: store.Published, Span: 0, Count: 30}, {State: store.Published, Span: days, Count: 1_000_000},
	}})
	if len(e.Columns) != 2 || e.Total != 1_000_040 || e.Within[0].Count != 40 || e.Weeks[0].Available != 10 || !e.Weeks[len(e.Weeks)-1].Later {
		t.Fatalf("endings = %+v", e)
	}
	for _, c := range e.Columns {
		foot := plotY
		for _, s := range c.Segments {
			if s.High < 1 || s.At+s.High != foot || s.At < plotY-plotHigh {
				t.Errorf("%s: %+v does not stand on %v", c.Says, s, foot)
			}
			foot = s.At
		}
	}
}
