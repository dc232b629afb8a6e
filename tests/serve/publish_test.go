package serve

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
)

// withDirectory adds a directory to the config.
func withDirectory(d *directorytest.Server, more string) func(*service, *settings) {
	return func(s *service, _ *settings) {
		s.on.Append(fmt.Sprintf("directories: [{name: main, type: http, url: %q, rate: 0%s}]", d.URL+"/key-packages", more))
	}
}

func newDirectory(t *testing.T) *directorytest.Server {
	t.Helper()
	d := directorytest.New(directorytest.Ours)
	t.Cleanup(d.Close)
	return d
}

func publish(t *testing.T, api hsmkpv1connect.KeyPackageServiceClient, r *hsmkpv1.PublishRequest) *hsmkpv1.PublishResponse {
	t.Helper()
	answer, err := api.Publish(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatalf("Publish() err = %v, want nil", err)
	}
	return answer.Msg
}

func TestKeyPackagesArePublished(t *testing.T) {
	d := newDirectory(t)
	s := start(t, withDirectory(d, ""))
	api := s.asApp()
	made := generate(t, api, 5)
	got := publish(t, api, &hsmkpv1.PublishRequest{Identity: "alice", Count: 2})
	if got.GetDirectory() != "main" || len(got.GetPublished()) != 2 || len(got.GetPending()) != 0 {
		t.Errorf("Publish() of two = %v, want two in main", got)
	}
	d.Refuse(made[3].GetRef())
	got = publish(t, api, &hsmkpv1.PublishRequest{Identity: "alice", Directory: "main"})
	if len(got.GetPublished()) != 2 || len(got.GetPending()) != 1 || got.GetPending()[0].GetReason() != hsmkpv1.Reason_REASON_REFUSED {
		t.Errorf("Publish() of the rest = %v, want two, and one refused", got)
	}
	refused := got.GetPending()[0].GetRef()
	posted := d.Posted()
	for _, k := range made {
		want := hsmkpv1.State_STATE_PUBLISHED
		if string(k.GetRef()) == string(refused) {
			want = hsmkpv1.State_STATE_PENDING
		} else if posted[hex.EncodeToString(k.GetRef())] != 1 {
			t.Errorf("%x was sent %d times, want once", k.GetRef(), posted[hex.EncodeToString(k.GetRef())])
		}
		now, err := api.Get(t.Context(), connect.NewRequest(&hsmkpv1.GetRequest{Ref: k.GetRef()}))
		if err != nil || now.Msg.GetKeyPackage().GetState() != want {
			t.Errorf("Get(%x) = %v, %v, want %v", k.GetRef(), now, err, want)
		}
	}
	for _, name := range []string{"other", "MAIN"} {
		_, err := api.Publish(t.Context(), connect.NewRequest(&hsmkpv1.PublishRequest{Identity: "alice", Directory: name}))
		wantReason(t, "directory "+name, err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED)
	}
	_, err := api.Publish(t.Context(), connect.NewRequest(&hsmkpv1.PublishRequest{Identity: "bob"}))
	wantReason(t, "bob's", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED)
	_, err = api.Publish(t.Context(), connect.NewRequest(&hsmkpv1.PublishRequest{Identity: "alice", Count: 51}))
	wantReason(t, "too many", err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED)
}

func TestAKeyPackageOfLastResortIsPublishedBesides(t *testing.T) {
	d := newDirectory(t)
	s := start(t, withDirectory(d, ""))
	api := s.asApp()
	last, err := api.Generate(t.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "alice", LastResort: true}))
	if err != nil {
		t.Fatal(err)
	}
	got := publish(t, api, &hsmkpv1.PublishRequest{Identity: "alice"})
	if len(got.GetPublished()) != 1 || string(got.GetPublished()[0]) != string(last.Msg.GetKeyPackages()[0].GetRef()) {
		t.Errorf("Publish() = %v, want that of last resort", got)
	}
}

func TestPublishingCountsItsQuota(t *testing.T) {
	d := newDirectory(t)
	s := start(t, withDirectory(d, ""))
	generate(t, s.asApp(), 3)
	few := s.api(s.remote(s.issue(s.ca, func(c *x509.Certificate) { c.DNSNames = []string{"few.example.com"} })))
	_, err := few.Publish(t.Context(), connect.NewRequest(&hsmkpv1.PublishRequest{Identity: "alice"}))
	wantReason(t, "three of two", err, connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_QUOTA_SPENT)
	if got := len(d.Posted()); got != 0 {
		t.Errorf("%d were sent, want none", got)
	}
	publish(t, few, &hsmkpv1.PublishRequest{Identity: "alice", Count: 2})
	_, err = few.Publish(t.Context(), connect.NewRequest(&hsmkpv1.PublishRequest{Identity: "alice", Count: 1}))
	wantReason(t, "one more", err, connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_QUOTA_SPENT)
}

// A directory that does not answer costs the request its time, but no key package: what is not
// acknowledged stays pending, and the same bytes are sent to the same directory again.
func TestWhatIsNotAcknowledgedInTimeStaysPending(t *testing.T) {
	d := newDirectory(t)
	s := start(t, withDirectory(d, ", timeout: 1m, deadline: 1m, lease: 2m, concurrency: 1"), func(_ *service, with *settings) { with.limits += ", request: 3s" })
	api := s.asApp()
	made := generate(t, api, 3)
	d.Fail(directorytest.Fault{Do: func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }}, directorytest.Slow(20*time.Second))
	begun := time.Now()
	got := publish(t, api, &hsmkpv1.PublishRequest{Identity: "alice"})
	if took := time.Since(begun); took > 15*time.Second { // the directory would take 20 s
		t.Errorf("Publish() took %v, want little more than 3 s", took)
	}
	if len(got.GetPublished()) != 0 || len(got.GetPending()) != 3 || got.GetPending()[0].GetReason() != hsmkpv1.Reason_REASON_DIRECTORY {
		t.Errorf("Publish() = %v, want three pending for the directory's sake", got)
	}
	d.Unfail()
	_, err := api.Claim(t.Context(), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: "alice"}))
	wantReason(t, "a claim of what is pending", err, connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_NONE_LEFT)
	got = publish(t, api, &hsmkpv1.PublishRequest{Identity: "alice"})
	if len(got.GetPublished()) != len(made) || len(got.GetPending()) != 0 {
		t.Errorf("Publish() again = %v, want all three", got)
	}
	if log := s.log.String(); !strings.Contains(log, `"directory":"main"`) {
		t.Errorf("the log does not name the directory:\n%s", log)
	}
}
