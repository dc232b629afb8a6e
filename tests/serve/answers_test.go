package serve

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	_ "github.com/mattn/go-sqlite3"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/needle"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// recorder keeps every byte of the answers: headers, bodies and trailers.
type recorder struct {
	http.RoundTripper
	major int // the required HTTP version of the answers

	t    *testing.T
	mu   sync.Mutex
	seen bytes.Buffer
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	a, err := r.RoundTripper.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err != nil {
		return nil, err
	}
	a.Body = io.NopCloser(bytes.NewReader(body))
	if a.ProtoMajor != r.major {
		r.t.Errorf("%s was answered over HTTP/%d, want %d", q.URL.Path, a.ProtoMajor, r.major)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = a.Header.Write(&r.seen)
	r.seen.Write(body)
	_ = a.Trailer.Write(&r.seen)
	return a, nil
}

// protocol is a way to call the service.
type protocol struct {
	name    string
	major   int // version of HTTP
	local   bool
	options []connect.ClientOption
}

var protocols = []protocol{
	{"gRPC over HTTP 2", 2, false, []connect.ClientOption{connect.WithGRPC()}},
	{"gRPC over a Unix socket", 2, true, []connect.ClientOption{connect.WithGRPC()}},
	{"gRPC-Web over HTTP 2", 2, false, []connect.ClientOption{connect.WithGRPCWeb()}},
	{"gRPC-Web over HTTP 1.1", 1, false, []connect.ClientOption{connect.WithGRPCWeb()}},
	{"Connect in JSON over HTTP 2", 2, false, []connect.ClientOption{connect.WithProtoJSON()}},
	{"Connect in JSON over HTTP 1.1", 1, false, []connect.ClientOption{connect.WithProtoJSON()}},
	{"Connect in binary over a Unix socket", 1, true, nil},
}

// by returns the API through a protocol, for a caller that is granted alice.
func (s *service) by(p protocol) (hsmkpv1connect.KeyPackageServiceClient, *recorder) {
	client, base := s.remote(s.issue(s.ca, withURI(app))), "https://"+s.addr
	if p.local {
		client, base = s.local(), "http://local"
	}
	transport := client.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(p.major == 1)
	transport.Protocols.SetHTTP2(p.major == 2 && !p.local)
	transport.Protocols.SetUnencryptedHTTP2(p.major == 2 && p.local)
	transport.ForceAttemptHTTP2 = p.major == 2
	r := &recorder{RoundTripper: transport, major: p.major, t: s.t}
	client.Transport = r
	return hsmkpv1connect.NewKeyPackageServiceClient(client, base, p.options...), r
}

// secrets holds what must not be in any answer, and what must not be in any log.
type secrets struct{ never, logged []needle.Needle }

// learn remembers the private keys of key packages, and their sealed forms.
func (s *service) learn(of *secrets, made []*hsmkpv1.KeyPackage) {
	s.t.Helper()
	for _, k := range made {
		u := s.on.Unwrap(hex.EncodeToString(k.GetRef()))
		of.never = append(of.never, needle.OfHex(s.t, "private init key", u.InitKey)...)
		of.never = append(of.never, needle.OfHex(s.t, "private key of a leaf", u.EncryptionKey)...)
	}
	s.learnSealed(of)
}

// learnSealed remembers the sealed keys in the store, and the CKA_IDs of the keys in the token.
func (s *service) learnSealed(of *secrets) {
	s.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(s.on.Dir, "hsm-kp.db")+"?mode=ro")
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	for what, query := range map[string]string{
		"sealed private keys": "SELECT sealed FROM key_packages WHERE sealed <> x''", "sealed key of a leaf": "SELECT leaf FROM key_packages WHERE leaf <> x''",
		"CKA_ID of a wrapping key": "SELECT key_id FROM wrapping_keys", "CKA_ID of a signature key": "SELECT key_id FROM identities",
	} {
		rows, err := db.QueryContext(s.t.Context(), query)
		if err != nil {
			s.t.Fatal(err)
		}
		for rows.Next() {
			var value []byte
			if err := rows.Scan(&value); err != nil {
				s.t.Fatal(err)
			}
			if strings.HasPrefix(what, "CKA_ID") {
				of.never = append(of.never, needle.Text(what, string(value)), needle.Text(what+" in hexadecimal", hex.EncodeToString(value)))
				continue
			}
			of.never = append(of.never, needle.Of(s.t, what, value)...)
		}
		if err := errorsOf(rows); err != nil {
			s.t.Fatal(err)
		}
	}
}

func errorsOf(rows *sql.Rows) error {
	if err := rows.Err(); err != nil {
		return err
	}
	return rows.Close()
}

// Every operation is called through every protocol, correctly and wrongly: each does its work, and
// no byte of the answers or of the log contains anything of a key.
func TestNothingOfAKeyIsInAnyAnswer(t *testing.T) {
	d := newDirectory(t)
	s := start(t, withDirectory(d, ""))
	pin, err := os.ReadFile(filepath.Join(s.on.Dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	all := &secrets{never: []needle.Needle{needle.Text("PIN", strings.TrimSpace(string(pin)))}}
	var answers []*recorder
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			api, r := s.by(p)
			r.t = t
			answers = append(answers, r)
			life(t, s, d, api, all)
			if t.Failed() {
				return
			}
			misuse(t, api)
		})
	}
	s.learnSealed(all)
	total := 0
	for i, r := range answers {
		needle.Search(t, "an answer by "+protocols[i].name, r.seen.Bytes(), all.never)
		if !needle.Found(r.seen.Bytes(), all.logged) {
			t.Errorf("the answers by %s do not have the joiner secret: is the search looking in the right place?", protocols[i].name)
		}
		total += r.seen.Len()
	}
	needle.Search(t, "the log", []byte(s.log.String()), append(all.never, all.logged...))
	t.Logf("searched %d bytes of answers for %d forms of secrets", total, len(all.never))
}

// life takes a key package through its whole life over one protocol.
func life(t *testing.T, s *service, d *directorytest.Server, api hsmkpv1connect.KeyPackageServiceClient, all *secrets) {
	t.Helper()
	ctx := t.Context()
	made := generate(t, api, 3)
	s.learn(all, made)
	if r, err := api.List(ctx, connect.NewRequest(&hsmkpv1.ListRequest{Identity: "alice", PageSize: 50, WithMessage: true})); err != nil || len(r.Msg.GetKeyPackages()) < 3 {
		t.Errorf("List() = %v, %v, want three and more", r, err)
	}
	published := publish(t, api, &hsmkpv1.PublishRequest{Identity: "alice", Count: 1})
	if len(published.GetPublished()) != 1 || d.Posted()[hex.EncodeToString(published.GetPublished()[0])] != 1 {
		t.Errorf("Publish() = %v, want one in the directory", published)
	}
	claimed, err := api.Claim(ctx, connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: "alice", Count: 2}))
	if err != nil || len(claimed.Msg.GetKeyPackages()) != 2 {
		t.Fatalf("Claim() = %v, %v, want two", claimed, err)
	}
	first, second := parse(t, claimed.Msg.GetKeyPackages()[0]), parse(t, claimed.Msg.GetKeyPackages()[1])
	suite, _ := ciphersuite.Lookup(first.CipherSuite)
	group := welcometest.NewGroup(t, suite)
	group.Path = append([]byte{1}, wire.AppendVector(nil, randomBytes(t, suite.Nh))...)
	all.logged = append(all.logged, needle.Of(t, "joiner secret", group.Joiner)...)
	all.logged = append(all.logged, needle.Of(t, "path secret", group.Path[2:])...)

	w := group.Welcome(first).Message()
	opened, err := api.OpenWelcome(ctx, connect.NewRequest(&hsmkpv1.OpenWelcomeRequest{Identity: "alice", Welcome: w}))
	if err != nil || !bytes.Equal(opened.Msg.GetJoinerSecret(), group.Joiner) {
		t.Fatalf("OpenWelcome() = %v, %v, want the joiner secret", opened, err)
	}
	ending := &hsmkpv1.ReleaseWelcomeRequest{Ref: opened.Msg.GetRef(), WelcomeDigest: opened.Msg.GetWelcomeDigest()}
	if r, err := api.ReleaseWelcome(ctx, connect.NewRequest(ending)); err != nil || r.Msg.GetState() != hsmkpv1.State_STATE_CLAIMED {
		t.Errorf("ReleaseWelcome() = %v, %v, want claimed", r, err)
	}
	if _, err := api.OpenWelcome(ctx, connect.NewRequest(&hsmkpv1.OpenWelcomeRequest{Identity: "alice", Welcome: w})); err != nil {
		t.Errorf("OpenWelcome() again err = %v, want nil", err)
	}
	if r, err := api.ConfirmWelcome(ctx, connect.NewRequest(&hsmkpv1.ConfirmWelcomeRequest{Ref: ending.GetRef(), WelcomeDigest: ending.GetWelcomeDigest()})); err != nil || r.Msg.GetState() != hsmkpv1.State_STATE_CONSUMED {
		t.Errorf("ConfirmWelcome() = %v, %v, want consumed", r, err)
	}
	s.learnSealed(all) // the leaf's key on its own
	if r, err := api.Get(ctx, connect.NewRequest(&hsmkpv1.GetRequest{Ref: ending.GetRef()})); err != nil || r.Msg.GetKeyPackage().GetState() != hsmkpv1.State_STATE_CONSUMED {
		t.Errorf("Get() = %v, %v, want consumed", r, err)
	}
	decryptPath(t, api, suite, first, ending.GetRef())
	decryptSecrets(t, api, group.Welcome(second))
	if _, err := api.SignWithLabel(ctx, connect.NewRequest(&hsmkpv1.SignWithLabelRequest{Identity: "alice", Label: "KeyPackageTBS", Content: tbsOf(first)})); err != nil {
		t.Errorf("SignWithLabel() err = %v, want nil", err)
	}
}

// decryptPath lets the service decrypt a path secret with the key of a leaf.
func decryptPath(t *testing.T, api hsmkpv1connect.KeyPackageServiceClient, suite *ciphersuite.Suite, kp *keypackage.KeyPackage, ref []byte) {
	t.Helper()
	secret := randomBytes(t, suite.Nh)
	group := keypackage.GroupContext{Version: keypackage.MLS10, CipherSuite: suite.ID, GroupID: []byte("g"), Epoch: 7}
	kem, ciphertext, err := hpke.EncryptWithLabel(suite, kp.LeafNode.EncryptionKey, "UpdatePathNode", group.Bytes(), secret)
	if err != nil {
		t.Fatal(err)
	}
	r, err := api.DecryptWithLabel(t.Context(), connect.NewRequest(&hsmkpv1.DecryptWithLabelRequest{
		Ref: ref, Label: "UpdatePathNode", Context: group.Bytes(), KemOutput: kem, Ciphertext: ciphertext,
	}))
	if err != nil || !bytes.Equal(r.Msg.GetPlaintext(), secret) {
		t.Errorf("DecryptWithLabel() of a path secret = %v, %v, want it", r, err)
	}
}

// decryptSecrets lets the service decrypt the GroupSecrets of a Welcome with an init key.
func decryptSecrets(t *testing.T, api hsmkpv1connect.KeyPackageServiceClient, w *keypackage.Welcome) {
	t.Helper()
	r, err := api.DecryptWithLabel(t.Context(), connect.NewRequest(&hsmkpv1.DecryptWithLabelRequest{
		Ref: w.Secrets[0].NewMember, Label: "Welcome", Context: w.EncryptedGroupInfo, KemOutput: w.Secrets[0].KEMOutput, Ciphertext: w.Secrets[0].Ciphertext,
	}))
	if err != nil || len(r.Msg.GetPlaintext()) == 0 {
		t.Errorf("DecryptWithLabel() of GroupSecrets = %v, %v, want them", r, err)
	}
}

// misuse calls every operation wrongly.
func misuse(t *testing.T, api hsmkpv1connect.KeyPackageServiceClient) {
	t.Helper()
	ctx, wrong := t.Context(), bytes.Repeat([]byte{0xAB}, 32)
	_, e1 := api.Generate(ctx, connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "alice", Count: 51}))
	_, e2 := api.List(ctx, connect.NewRequest(&hsmkpv1.ListRequest{Identity: "alice", PageToken: "x"}))
	_, e3 := api.Get(ctx, connect.NewRequest(&hsmkpv1.GetRequest{Ref: wrong}))
	_, e4 := api.Claim(ctx, connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: "alice", Count: 1001}))
	_, e5 := api.Publish(ctx, connect.NewRequest(&hsmkpv1.PublishRequest{Identity: "alice", Directory: "other"}))
	_, e6 := api.OpenWelcome(ctx, connect.NewRequest(&hsmkpv1.OpenWelcomeRequest{Identity: "alice", Welcome: wrong}))
	_, e7 := api.ConfirmWelcome(ctx, connect.NewRequest(&hsmkpv1.ConfirmWelcomeRequest{Ref: wrong}))
	_, e8 := api.ReleaseWelcome(ctx, connect.NewRequest(&hsmkpv1.ReleaseWelcomeRequest{Ref: wrong}))
	_, e9 := api.SignWithLabel(ctx, connect.NewRequest(&hsmkpv1.SignWithLabelRequest{Identity: "alice", Label: "LeafNodeTBS", Content: wrong}))
	_, e10 := api.DecryptWithLabel(ctx, connect.NewRequest(&hsmkpv1.DecryptWithLabelRequest{Ref: wrong, Label: "Welcome"}))
	for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9, e10} {
		e := new(connect.Error)
		if !asError(err, &e) || len(e.Details()) != 1 {
			t.Errorf("misuse %d: err = %v, want one of the service's with a reason", i+1, err)
		}
	}
}

// People read JSON with curl.
func TestAnErrorInJSONHasItsReason(t *testing.T) {
	s := start(t)
	_, answer := s.post(s.local(), "http://local", "SignWithLabel", `{"identity":"alice","label":"MyProtocol"}`)
	text, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"debug":{"reason":"REASON_LABEL"}`) {
		t.Errorf("the answer is %s, want the reason in it", text)
	}
}
