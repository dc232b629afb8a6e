package observe

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/hsm-kp/hsm-kp/token"
)

// gather returns all metrics by name, and as lines by name and labels.
func (w *seen) gather(t testing.TB) (map[string]*dto.MetricFamily, map[string]float64) {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	by, values := make(map[string]*dto.MetricFamily), make(map[string]float64)
	for _, f := range families {
		by[f.GetName()] = f
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			values[strings.Join(append([]string{f.GetName()}, labels...), " ")] = v
		}
	}
	return by, values
}

func TestMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	w := watch(t, 10)
	w.add(t, "alice", 1, 20)
	w.happen()
	by, _ := w.gather(t)
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(by))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "hsm_kp_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Every metric that the dashboard, the rules and the manual name exists, and the manual names all
// metrics.
func TestEveryMetricThatIsNamedIsThere(t *testing.T) {
	w := watch(t, 10)
	w.add(t, "alice", 1, 20)
	w.happen()
	by, _ := w.gather(t)
	by["hsm_kp_certificate_expiry_timestamp_seconds"] = nil // alice has no certificate
	name := regexp.MustCompile(`\b(hsm_kp|process|go)_[a-z_0-9]+`)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, path := range []string{"../../deploy/grafana/hsm-kp.json", "../../deploy/prometheus/hsm-kp.rules.yml", "../../deploy/prometheus/hsm-kp.rules.test.yml", "../../docs/OBSERVABILITY.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for _, n := range name.FindAllString(string(text), -1) {
			seen[n], seen[suffix.ReplaceAllString(n, "")] = true, true
			if _, there := by[n]; !there {
				if _, there := by[suffix.ReplaceAllString(n, "")]; !there {
					t.Errorf("%s names %s, which does not exist", path, n)
				}
			}
		}
		for n := range by {
			if strings.HasSuffix(path, ".md") && strings.HasPrefix(n, "hsm_kp_") && !seen[n] {
				t.Errorf("%s does not name %s", path, n)
			}
		}
	}
}

func TestTheDashboardIsOne(t *testing.T) {
	text, err := os.ReadFile("../../deploy/grafana/hsm-kp.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	taken, ids := make(map[[2]int]string), make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q: its number is another's, or it has no title or no query", p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" || at[0] >= 24 {
					t.Errorf("panel %q lies on %q, or beyond the edge", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
	}
}

func TestMetricsSayWhatTheStoreHas(t *testing.T) {
	w := watch(t, 10)
	w.add(t, "alice", 0, 5, 20, 20, 20)
	w.add(t, "bob")
	w.happen()
	_, got := w.gather(t)
	const suite = "cipher_suite=MLS_128_DHKEMP256_AES128GCM_SHA256_P256"
	for line, want := range map[string]float64{
		"hsm_kp_key_packages " + suite + " identity=alice last_resort=false state=available": 5,
		"hsm_kp_key_packages " + suite + " identity=bob last_resort=false state=available":   0,
		"hsm_kp_key_packages_expiring " + suite + " identity=alice within=1d":                1,
		"hsm_kp_key_packages_expiring " + suite + " identity=alice within=7d":                2,
		"hsm_kp_key_packages_expiring " + suite + " identity=alice within=30d":               5,
		"hsm_kp_key_packages_first_expiry_timestamp_seconds " + suite + " identity=alice":    float64(at.Unix() + 3600),
		"hsm_kp_pool_level identity=alice":                                                   3,
		"hsm_kp_pool_low_mark identity=bob":                                                  3,
		"hsm_kp_identities pool=empty":                                                       1,
		"hsm_kp_identities pool=low":                                                         0,
		"hsm_kp_identities pool=filled":                                                      1,
		"hsm_kp_store_key_packages state=available":                                          5,
		"hsm_kp_store_key_packages state=consumed":                                           0,
		"hsm_kp_wrapping_keys purpose=seal status=current":                                   1,
		"hsm_kp_wrapping_key_uses purpose=seal":                                              5,
		"hsm_kp_wrapping_key_due purpose=seal":                                               1,
		"hsm_kp_ready":                                                                       1,
		"hsm_kp_token_sessions state=in_use":                                                 1,
		"hsm_kp_token_sessions_limit":                                                        8,
		"hsm_kp_token_call_duration_seconds function=C_Sign":                                 2,
		"hsm_kp_token_call_failures_total function=C_Sign rv=CKR_DEVICE_ERROR":               1,
		"hsm_kp_token_recoveries_total step=login":                                           1,
		"hsm_kp_requests_total code=ok operation=claim rule=app":                             1,
		"hsm_kp_refusals_total operation=claim reason=not_granted":                           1,
		"hsm_kp_requests_in_flight":                                                          1,
	} {
		if v, there := got[line]; !there || v != want {
			t.Errorf("%s is %v, there: %v; want %v", line, v, there, want)
		}
	}
}

func TestIdentitiesBeyondTheLimitAreOne(t *testing.T) {
	w := watch(t, 3)
	for i := range 12 {
		w.add(t, fmt.Sprintf("device-%02d", i), 20, 30)
	}
	by, _ := w.gather(t)
	values := make(map[string]float64)
	for _, m := range by["hsm_kp_key_packages"].GetMetric() {
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["state"] == "available" {
			values[labels["identity"]] += m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{"device-00": 2, "device-01": 2, "device-02": 2, "-others": 18}
	if !maps.Equal(values, want) {
		t.Errorf("available: %v, want %v", values, want)
	}
	if n := len(by["hsm_kp_pool_level"].GetMetric()); n != 3 {
		t.Errorf("%d levels, want 3", n)
	}
}

func TestTheStoreIsAskedNowAndThen(t *testing.T) {
	w := watch(t, 10)
	w.add(t, "alice", 20)
	for range 20 {
		w.gather(t)
	}
	if n := w.store.surveys.Load(); n != 1 {
		t.Errorf("20 scrapes asked %d times, want once", n)
	}
	w.clock.Add(15)
	w.add(t, "bob", 20)
	if _, got := w.gather(t); got["hsm_kp_pool_level identity=bob"] != 1 {
		t.Error("bob is not there after the interval")
	}

	// While the store cannot be reached, its last answer is shown with its age.
	w.store.away.Store(true)
	w.clock.Add(1000)
	_, got := w.gather(t)
	if got["hsm_kp_survey_failures_total"] != 1 || got["hsm_kp_pool_level identity=bob"] != 1 {
		t.Errorf("away: %v failures, bob's level is %v", got["hsm_kp_survey_failures_total"], got["hsm_kp_pool_level identity=bob"])
	}
	if age := float64(at.Unix()+1015) - got["hsm_kp_survey_timestamp_seconds"]; age != 1000 {
		t.Errorf("the survey is %v s old, want 1000", age)
	}
}

// A module that invents return values creates no metrics, and an answer is not a failure.
func TestReturnValuesAreBounded(t *testing.T) {
	w := watch(t, 10)
	for i := range 1000 {
		w.Events.Call(token.Call{Func: "C_Sign", RV: token.RV(0x80000000 + i)})
	}
	w.Events.Call(token.Call{Func: "C_GetAttributeValue", RV: token.CKR_ATTRIBUTE_TYPE_INVALID})
	by, got := w.gather(t)
	if n := len(by["hsm_kp_token_call_failures_total"].GetMetric()); n != maxCodes+1 {
		t.Errorf("%d return values have a label, want %d and the rest", n, maxCodes)
	}
	if other := got["hsm_kp_token_call_failures_total function=C_Sign rv=other"]; other != 1000-maxCodes {
		t.Errorf("other: %v, want %d", other, 1000-maxCodes)
	}
	if n := len(w.Events.faults.list()); n != maxFaults {
		t.Errorf("the page has %d faults, want %d", n, maxFaults)
	}
}

// BenchmarkCall measures what watching adds to a call of the token.
func BenchmarkCall(b *testing.B) {
	e := NewEvents(time.Now)
	c := token.Call{Func: "C_Sign", Took: 3 * time.Millisecond}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e.Call(c)
		}
	})
}
