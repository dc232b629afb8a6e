package serve

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

func asError(err error, to **connect.Error) bool { return errors.As(err, to) }

// generate makes key packages of alice.
func generate(t *testing.T, api hsmkpv1connect.KeyPackageServiceClient, n uint32) []*hsmkpv1.KeyPackage {
	t.Helper()
	r, err := api.Generate(t.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "alice", Count: n}))
	if err != nil {
		t.Fatalf("Generate() err = %v", err)
	}
	if got := len(r.Msg.GetKeyPackages()); got != int(n) {
		t.Fatalf("Generate() made %d key packages, want %d", got, n)
	}
	return r.Msg.GetKeyPackages()
}

func parse(t *testing.T, k *hsmkpv1.KeyPackage) *keypackage.KeyPackage {
	t.Helper()
	m, err := keypackage.ParseMessage(k.GetMlsMessage())
	if err != nil || m.KeyPackage == nil {
		t.Fatalf("ParseMessage() = %v, %v", m, err)
	}
	return m.KeyPackage
}

func TestAKeyPackagesWholeLife(t *testing.T) {
	s := start(t)
	api := s.asApp()
	generate(t, api, 3)
	list, err := api.List(t.Context(), connect.NewRequest(&hsmkpv1.ListRequest{Identity: "alice", PageSize: 2}))
	if err != nil || len(list.Msg.GetKeyPackages()) != 2 || list.Msg.GetNextPageToken() == "" {
		t.Fatalf("List() = %v, %v, want two and a token", list, err)
	}
	list, err = api.List(t.Context(), connect.NewRequest(&hsmkpv1.ListRequest{Identity: "alice", PageSize: 2, PageToken: list.Msg.GetNextPageToken()}))
	if err != nil || len(list.Msg.GetKeyPackages()) != 1 || list.Msg.GetNextPageToken() != "" {
		t.Fatalf("List() of the rest = %v, %v, want one and no token", list, err)
	}
	claimed, err := api.Claim(t.Context(), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: "alice"}))
	if err != nil {
		t.Fatal(err)
	}
	kp := parse(t, claimed.Msg.GetKeyPackages()[0])
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	w := welcometest.NewGroup(t, suite).Welcome(kp).Message()
	opened, err := api.OpenWelcome(t.Context(), connect.NewRequest(&hsmkpv1.OpenWelcomeRequest{Identity: "alice", Welcome: w}))
	if err != nil {
		t.Fatalf("OpenWelcome() err = %v", err)
	}
	if len(opened.Msg.GetJoinerSecret()) != suite.Nh || !opened.Msg.GetSignatureVerified() {
		t.Errorf("joiner secret of %d bytes, signature verified: %v", len(opened.Msg.GetJoinerSecret()), opened.Msg.GetSignatureVerified())
	}
	got, err := api.Get(t.Context(), connect.NewRequest(&hsmkpv1.GetRequest{Ref: opened.Msg.GetRef()}))
	if err != nil || got.Msg.GetKeyPackage().GetState() != hsmkpv1.State_STATE_RESERVED {
		t.Errorf("Get() = %v, %v, want a reserved one", got, err)
	}
	for range 2 { // the answer to the first may have been lost
		confirmed, err := api.ConfirmWelcome(t.Context(), connect.NewRequest(&hsmkpv1.ConfirmWelcomeRequest{Ref: opened.Msg.GetRef(), WelcomeDigest: opened.Msg.GetWelcomeDigest()}))
		if err != nil || confirmed.Msg.GetState() != hsmkpv1.State_STATE_CONSUMED {
			t.Errorf("ConfirmWelcome() = %v, %v, want consumed", confirmed, err)
		}
	}
	_, err = api.ConfirmWelcome(t.Context(), connect.NewRequest(&hsmkpv1.ConfirmWelcomeRequest{Ref: opened.Msg.GetRef(), WelcomeDigest: make([]byte, 32)}))
	wantReason(t, "confirm for another Welcome", err, connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_STATE)
	_, err = api.OpenWelcome(t.Context(), connect.NewRequest(&hsmkpv1.OpenWelcomeRequest{Identity: "alice", Welcome: w}))
	wantReason(t, "the Welcome again", err, connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_CONSUMED)
	s.checkTrail("uri:"+app, "consumed")
}

// A client with its own MLS library opens a Welcome in parts: the service decrypts with the init
// key, the client does the rest.
func TestAWelcomesSecretsAreDecryptedWithTheInitKey(t *testing.T) {
	s := start(t)
	api := s.asApp()
	kp := parse(t, generate(t, api, 1)[0])
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	group := welcometest.NewGroup(t, suite)
	w := group.Welcome(kp)
	ask := func(change func(*hsmkpv1.DecryptWithLabelRequest)) (*hsmkpv1.DecryptWithLabelResponse, error) {
		secrets := w.Secrets[0]
		m := &hsmkpv1.DecryptWithLabelRequest{
			Ref: secrets.NewMember, Label: "Welcome", Context: w.EncryptedGroupInfo, KemOutput: secrets.KEMOutput, Ciphertext: bytes.Clone(secrets.Ciphertext),
		}
		change(m)
		r, err := api.DecryptWithLabel(t.Context(), connect.NewRequest(m))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	for what, change := range map[string]func(*hsmkpv1.DecryptWithLabelRequest){
		"a ciphertext that is not the group's": func(m *hsmkpv1.DecryptWithLabelRequest) { m.Ciphertext[0] ^= 1 },
		"a GroupInfo of another group":         func(m *hsmkpv1.DecryptWithLabelRequest) { m.Context = bytes.Clone(m.Context[1:]) },
	} {
		_, err := ask(change)
		wantReason(t, what, err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_NOT_OPENED)
	}
	_, err := ask(func(m *hsmkpv1.DecryptWithLabelRequest) { m.Label = "UpdatePathNode" })
	wantReason(t, "a context that is no GroupContext", err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED)
	_, err = ask(func(m *hsmkpv1.DecryptWithLabelRequest) { m.Label = "MyProtocol" })
	wantReason(t, "a label that is not MLS's", err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_LABEL)

	got, err := ask(func(*hsmkpv1.DecryptWithLabelRequest) {})
	if err != nil {
		t.Fatalf("DecryptWithLabel() err = %v, want nil", err)
	}
	want := append(append(wire.AppendVector(nil, group.Joiner), group.Path...), 0)
	if !bytes.Equal(got.GetPlaintext(), want) {
		t.Errorf("DecryptWithLabel() = %x, want the GroupSecrets %x", got.GetPlaintext(), want)
	}
	if again, err := ask(func(*hsmkpv1.DecryptWithLabelRequest) {}); err != nil || !bytes.Equal(again.GetPlaintext(), want) {
		t.Errorf("DecryptWithLabel() again = %v, %v, want the same while it is reserved", again, err)
	}
	w = welcometest.NewGroup(t, suite).Welcome(kp)
	_, err = ask(func(*hsmkpv1.DecryptWithLabelRequest) {})
	wantReason(t, "another Welcome", err, connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_RESERVED)
	confirmed, err := api.ConfirmWelcome(t.Context(), connect.NewRequest(&hsmkpv1.ConfirmWelcomeRequest{Ref: w.Secrets[0].NewMember, WelcomeDigest: got.GetWelcomeDigest()}))
	if err != nil || confirmed.Msg.GetState() != hsmkpv1.State_STATE_CONSUMED {
		t.Errorf("ConfirmWelcome() = %v, %v, want consumed", confirmed, err)
	}
}

// checkTrail looks in the audit trail for an act of an actor whose detail contains the given texts.
// The entry may be written a moment after the caller got its answer.
func (s *service) checkTrail(actor, act string, detail ...string) {
	s.t.Helper()
	want := append([]string{`"` + actor + `"`, `"` + act + `"`}, detail...)
	var trail string
	for deadline := time.Now().Add(program.Patience / 4); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		trail = string(s.on.Run("audit", "show", "--json"))
		if slices.ContainsFunc(strings.Split(trail, "\n"), func(line string) bool {
			return !slices.ContainsFunc(want, func(text string) bool { return !strings.Contains(line, text) })
		}) {
			return
		}
	}
	s.t.Errorf("the trail has no %q of %s that says %q:\n%s", act, actor, detail, trail)
}

func TestOnlyWhatTheIdentityWouldSendIsSigned(t *testing.T) {
	s := start(t)
	api := s.asApp()
	kp := parse(t, generate(t, api, 1)[0])
	sign := func(label string, content []byte) ([]byte, error) {
		r, err := api.SignWithLabel(t.Context(), connect.NewRequest(&hsmkpv1.SignWithLabelRequest{Identity: "alice", Label: label, Content: content}))
		if err != nil {
			return nil, err
		}
		return r.Msg.GetSignature(), nil
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	public, err := suite.Signature.ParsePublicKey(kp.LeafNode.SignatureKey)
	if err != nil {
		t.Fatal(err)
	}
	tbs := tbsOf(kp)
	group := keypackage.GroupContext{Version: keypackage.MLS10, CipherSuite: suite.ID, GroupID: []byte("g"), Epoch: 7}
	message := append([]byte("\x00\x01\x00\x02\x01g\x00\x00\x00\x00\x00\x00\x00\x07\x01\x00\x00\x00\x03\x00\x01\x02hi"), group.Bytes()...)
	for label, content := range map[string][]byte{"KeyPackageTBS": tbs, "FramedContentTBS": message} {
		signature, err := sign(label, content)
		if err != nil {
			t.Errorf("%s: err = %v, want nil", label, err)
			continue
		}
		if err := public.VerifyWithLabel(label, content, signature); err != nil {
			t.Errorf("%s: %v", label, err)
		}
		_, err = sign(label, append(bytes.Clone(content), 0))
		wantReason(t, label+" and a byte", err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED)
	}
	s.checkTrail("uri:"+app, "signed")
	_, err = sign("MyProtocol", []byte("pay a million"))
	wantReason(t, "a label that is not MLS's", err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_LABEL)
	_, err = sign("GroupInfoTBS", tbs)
	wantReason(t, "another structure", err, connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED)
	group.CipherSuite = 1
	other := append(bytes.Clone(message[:len(message)-len(group.Bytes())]), group.Bytes()...)
	_, err = sign("FramedContentTBS", other)
	wantReason(t, "another suite", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_FOREIGN_CONTENT)
	_, err = sign("KeyPackageTBS", tbsOf(parse(t, &hsmkpv1.KeyPackage{MlsMessage: s.bobs()})))
	wantReason(t, "bob's key package", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_FOREIGN_CONTENT)
	for _, why := range []string{"the label is not accepted", "content is not a GroupInfoTBS", "content is not a KeyPackageTBS", "another version or cipher suite", "another signature key or credential"} {
		s.checkTrail("uri:"+app, "refused", "sign_with_label: ", why, `"alice"`)
	}
}

// tbsOf returns the KeyPackageTBS of a key package.
func tbsOf(kp *keypackage.KeyPackage) []byte {
	whole := kp.Bytes()
	return whole[:len(whole)-wire.VectorLen(len(kp.Signature))-len(kp.Signature)]
}

// bobs returns a key package of bob's, which is granted only to local callers.
func (s *service) bobs() []byte {
	s.t.Helper()
	api := hsmkpv1connect.NewKeyPackageServiceClient(s.local(), "http://local")
	r, err := api.Generate(s.t.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "bob"}))
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Msg.GetKeyPackages()[0].GetMlsMessage()
}

func TestAQuotaIsSpent(t *testing.T) {
	s := start(t)
	generate(t, s.asApp(), 4)
	few := s.api(s.remote(s.issue(s.ca, func(c *x509.Certificate) { c.DNSNames = []string{"few.example.com"} })))
	claim := func(n uint32) error {
		_, err := few.Claim(t.Context(), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: "alice", Count: n}))
		return err
	}
	wantReason(t, "three of two", claim(3), connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_QUOTA_SPENT)
	if err := claim(2); err != nil {
		t.Fatalf("Claim() of two: %v", err)
	}
	wantReason(t, "one more", claim(1), connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_QUOTA_SPENT)
	_, err := few.Generate(t.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "alice"}))
	wantReason(t, "an operation that is not granted", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED)
	s.checkTrail("dns:few.example.com", "refused", "claim: the quota of the period is spent")
	s.checkTrail("dns:few.example.com", "refused", "generate: this is not granted to the caller")
}

func TestJSONOverAUnixSocket(t *testing.T) {
	s := start(t)
	status, answer := s.post(s.local(), "http://local", "Generate", `{"identity":"bob","count":2}`)
	if made, _ := answer["keyPackages"].([]any); status != http.StatusOK || len(made) != 2 {
		t.Errorf("Generate = %d %v, want two", status, answer)
	}
	status, answer = s.post(s.local(), "http://local", "Claim", `{"identity":"nobody"}`)
	if status != http.StatusNotFound || answer["code"] != "not_found" {
		t.Errorf("Claim of nobody = %d %v, want not_found", status, answer)
	}
	if err := s.stop(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit status 0", err)
	}
	if log := s.log.String(); !strings.Contains(log, `"msg":"stopped"`) {
		t.Errorf("the log does not say that it stopped:\n%s", log)
	}
}
