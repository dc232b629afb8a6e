package serve

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The pages are served beside the API, over mutual TLS, to callers to whom a rule grants them.
func TestPagesAreForThoseWhoAreGrantedThem(t *testing.T) {
	s := start(t)
	generate(t, s.asApp(), 3)
	get := func(c *http.Client, path string) (int, string) {
		t.Helper()
		r, err := c.Get("https://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(text)
	}
	watch := s.remote(s.issue(s.ca, withURI("spiffe://example.com/prometheus")))
	if status, text := get(watch, "/metrics"); status != http.StatusOK || !strings.Contains(text, `hsm_kp_pool_level{identity="alice"} 3`) {
		t.Errorf("/metrics: %d, want alice's level of 3 in\n%s", status, text)
	}
	if status, text := get(watch, "/status"); status != http.StatusOK || !strings.Contains(text, `<th scope="row">alice</th>`) {
		t.Errorf("/status: %d, want alice in\n%s", status, text)
	}
	stranger := s.remote(s.issue(s.ca, withURI(app)))
	for _, path := range []string{"/metrics", "/status"} {
		if status, text := get(stranger, path); status != http.StatusForbidden || text != "this is not granted to the caller\n" {
			t.Errorf("%s by the app: %d %q, want it refused", path, status, text)
		}
	}
	s.checkTrail("uri:"+app, "refused")
	if _, err := s.remote([]tls.Certificate{}...).Get("https://" + s.addr + "/metrics"); err == nil {
		t.Error("/metrics without a certificate: want no connection")
	}
	var text string
	s.until("a refused connection is counted, once the trail has it", func() bool {
		_, text = get(watch, "/metrics")
		return strings.Contains(text, `operation="connect"`)
	})
	for _, want := range []string{
		`hsm_kp_requests_total{code="permission_denied",operation="status",rule=""} 1`,
		`hsm_kp_refusals_total{operation="metrics",reason="not_granted"} 1`,
		`hsm_kp_refusals_total{operation="connect",reason="no_certificate"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the metrics do not have %s", want)
		}
	}
}
