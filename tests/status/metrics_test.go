package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

const p256 = `cipher_suite="MLS_128_DHKEMP256_AES128GCM_SHA256_P256"`

// count asks the store as an operator would.
func (s *service) count(identity string) map[string]float64 {
	s.t.Helper()
	var counts map[string]float64
	if err := json.Unmarshal(s.Run("list", "--count", "--json", "--identity", identity), &counts); err != nil {
		s.t.Fatal(err)
	}
	return counts
}

func TestAScrapeSaysWhatWasDone(t *testing.T) {
	s := populate(t)
	s.serve()
	before := s.scrape()
	for range 7 {
		if status := s.call("Claim", `{"identity":"alice@example.com"}`); status != http.StatusOK {
			t.Fatalf("Claim: %d", status)
		}
	}
	if status := s.call("Generate", `{"identity":"alice@example.com","count":5}`); status != http.StatusOK {
		t.Fatalf("Generate: %d", status)
	}
	for range 3 {
		if status := s.call("OpenWelcome", `{"identity":"alice@example.com","welcome":"AAE="}`); status != http.StatusForbidden {
			t.Fatalf("OpenWelcome: %d, want it refused", status)
		}
	}
	if status := s.call("SignWithLabel", `{"identity":"alice@example.com","label":"MyProtocol","content":"AAE="}`); status != http.StatusBadRequest {
		t.Fatalf("SignWithLabel: %d, want it refused", status)
	}
	counts := s.count("alice@example.com")
	got := s.scrape()
	available := `hsm_kp_key_packages{` + p256 + `,identity="alice@example.com",last_resort="false",state="available"}`
	for deadline := time.Now().Add(program.Patience); got[available] != counts["available"] && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond) // the store is counted once an interval, or less often on a slow machine
		got = s.scrape()
	}
	for line, want := range map[string]float64{
		`hsm_kp_requests_total{code="ok",operation="claim",rule="local"}`:                                      7,
		`hsm_kp_requests_total{code="ok",operation="generate",rule="local"}`:                                   1,
		`hsm_kp_requests_total{code="permission_denied",operation="open_welcome",rule=""}`:                     3,
		`hsm_kp_requests_total{code="invalid_argument",operation="sign_with_label",rule="local"}`:              1,
		`hsm_kp_refusals_total{operation="open_welcome",reason="not_granted"}`:                                 3,
		`hsm_kp_refusals_total{operation="sign_with_label",reason="label"}`:                                    1,
		`hsm_kp_request_duration_seconds_count{operation="claim"}`:                                             7,
		`hsm_kp_key_packages{` + p256 + `,identity="alice@example.com",last_resort="false",state="available"}`: 22,
		`hsm_kp_key_packages{` + p256 + `,identity="alice@example.com",last_resort="false",state="claimed"}`:   7,
		`hsm_kp_key_packages{` + p256 + `,identity="alice@example.com",last_resort="false",state="published"}`: 18,
		`hsm_kp_pool_level{identity="alice@example.com"}`:                                                      40,
		`hsm_kp_pool_low_mark{identity="alice@example.com"}`:                                                   20,
		`hsm_kp_identities{pool="empty"}`:                                                                      1,
		`hsm_kp_identities{pool="low"}`:                                                                        2,
		`hsm_kp_ready`:                                                                                         1,
		`hsm_kp_token_usable`:                                                                                  1,
		`hsm_kp_token_sessions_limit`:                                                                          8,
	} {
		if v, there := got[line]; !there || v != want {
			t.Errorf("%s is %v, there: %v; want %v", line, v, there, want)
		}
	}
	for state, want := range counts {
		line := fmt.Sprintf(`hsm_kp_key_packages{%s,identity="alice@example.com",last_resort="false",state=%q}`, p256, state)
		if v := got[line]; v != want {
			t.Errorf("%s is %v, and `list --count` says %v", line, v, want)
		}
	}
	// Two signatures for each key package, and one sealing.
	for function, want := range map[string]float64{"C_Sign": 10, "C_Encrypt": 5} {
		line := fmt.Sprintf(`hsm_kp_token_call_duration_seconds_count{function=%q}`, function)
		if n := got[line] - before[line]; n < want || n > want+3 {
			t.Errorf("%s grew by %v, want %v and little more", line, n, want)
		}
	}
	ends := time.Unix(int64(got[`hsm_kp_certificate_expiry_timestamp_seconds{identity="gateway-cdg-1"}`]), 0)
	if d := time.Until(ends).Hours() / 24; d < 17 || d > 18 {
		t.Errorf("the certificate of gateway-cdg-1 ends in %.1f days, want 17.5", d)
	}
	t.Run("promtool", func(t *testing.T) {
		_, text := s.get("/metrics")
		promtool(t, text, "check", "metrics")
	})
	for line := range got {
		if strings.Contains(line, s.Dir) || strings.Contains(line, "/") && strings.HasPrefix(line, "hsm_kp_token") {
			t.Errorf("%s has a path", line)
		}
	}
}

func TestALocalSocketServesTheSame(t *testing.T) {
	s := install(t)
	s.serve()
	r, err := s.over("observe").Get("http://local/metrics")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Errorf("GET /metrics over the socket: %d", r.StatusCode)
	}
	r, err = s.over("observe").Post("http://local/hsmkp.v1.KeyPackageService/List", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusNotFound && r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("the API at server.observe.listen: %d, want none", r.StatusCode)
	}
	if r, err = s.over("api").Get("http://local/metrics"); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusForbidden {
		t.Errorf("GET /metrics by a caller that is not granted it: %d, want 403", r.StatusCode)
	}
	if trail := string(s.Run("audit", "show", "--json")); !strings.Contains(trail, "metrics: this is not granted to the caller") {
		t.Error("the trail does not say that the page was refused")
	}
}

func TestATokenThatFailsIsSeen(t *testing.T) {
	s := install(t)
	s.Run("identity", "create", "alice@example.com")
	path, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	m := tokentest.New(t, path)
	s.Edit(fmt.Sprintf("module: %q", path), fmt.Sprintf("module: %q", m.Path))
	s.serve()
	m.Fail(t, "C_Sign", 1, 2, token.CKR_DEVICE_ERROR)
	if status := s.call("Generate", `{"identity":"alice@example.com"}`); status != http.StatusOK {
		t.Fatalf("Generate: %d, want the token recovered", status)
	}
	got := s.scrape()
	if n := got[`hsm_kp_token_call_failures_total{function="C_Sign",rv="CKR_DEVICE_ERROR"}`]; n != 2 {
		t.Errorf("%v failures of C_Sign, want 2", n)
	}
	if n := got[`hsm_kp_token_recoveries_total{step="login"}`]; n == 0 {
		t.Error("no recovery was counted")
	}
	_, page := s.get("/status")
	if !regexp.MustCompile(`<code>C_Sign</code> <code class="bad">CKR_DEVICE_ERROR</code> × 2`).MatchString(page) {
		t.Errorf("the page does not have the failures:\n%s", page)
	}
}

// promtool runs Prometheus' own tool with text on its standard input.
func promtool(t *testing.T, text string, args ...string) {
	t.Helper()
	cmd := exec.Command(tool(t, "promtool"), args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("error while linting")) {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertsAlertOfWhatTheyAreFor(t *testing.T) {
	rules := filepath.Join(program.Root(), "deploy", "prometheus")
	promtool(t, "", "check", "rules", filepath.Join(rules, "hsm-kp.rules.yml"))
	promtool(t, "", "test", "rules", filepath.Join(rules, "hsm-kp.rules.test.yml"))
}

// The dashboard's queries are valid PromQL: Prometheus accepts them as rules.
func TestTheDashboardAsksWhatPrometheusUnderstands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(program.Root(), "deploy", "grafana", "hsm-kp.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	n := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			n++
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")
			rules += fmt.Sprintf("  - {record: 'panel:query%d', expr: %q}\n", n, expr)
		}
	}
	if n < 20 {
		t.Fatalf("the dashboard has %d queries", n)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", path)
}
