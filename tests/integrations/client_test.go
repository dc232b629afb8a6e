package integrations

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	mlsgo "github.com/thomas-vilte/mls-go"
	theirs "github.com/thomas-vilte/mls-go/ciphersuite"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/client"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// way is how the two members reach the service, and where the other one gets key packages.
type way struct {
	name  string
	own   client.Options
	taken func(t *testing.T, identity string) *hsmkpv1.KeyPackage
}

func (s *service) ways() []way {
	tls := func(caller string) client.Options {
		return client.Options{URL: s.url, Certificate: s.path(caller + ".pem"), Key: s.path(caller + ".key"), CA: s.path("ca.pem")}
	}
	socket := client.Options{URL: "unix:" + s.recorded}
	return []way{
		{"mutual TLS, from the directory", tls("member"), s.take},
		{"Unix socket, claimed", socket, func(t *testing.T, identity string) *hsmkpv1.KeyPackage {
			claimed, err := openClient(t, tls("adder")).Claim(t.Context(), identity, 1)
			if err != nil {
				t.Fatal(err)
			}
			return claimed[0]
		}},
	}
}

func openClient(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// take fetches a key package from the directory that it was published to.
func (s *service) take(t *testing.T, identity string) *hsmkpv1.KeyPackage {
	t.Helper()
	r, err := http.Get(s.directory.URL + "/clients/key_package/" + base64.URLEncoding.EncodeToString([]byte(identity)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	bare, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("take a key package: %s, %v", r.Status, err)
	}
	kp, err := keypackage.Parse(bare)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := kp.Ref()
	if err != nil {
		t.Fatal(err)
	}
	return &hsmkpv1.KeyPackage{Ref: ref, MlsMessage: kp.Message()}
}

// mls-go makes the groups. Nobody can read its groups of suite 5.
func TestGoClient(t *testing.T) {
	s := start(t, "1", "2", "3")
	for _, w := range s.ways() {
		for _, suite := range s.suites {
			t.Run(w.name+", suite "+suite, func(t *testing.T) { s.wholeWay(t, w, suite) })
		}
	}
	if t.Failed() {
		return
	}
	s.checkNoKeys(t)
	s.checkTrail(t, "FramedContentTBS", "LeafNodeTBS")
}

// wholeWay lets bob, of mls-go, make a group and add alice, who is a member.
func (s *service) wholeWay(t *testing.T, w way, suite string) {
	ctx := t.Context()
	number, err := strconv.Atoi(suite)
	if err != nil {
		t.Fatal(err)
	}
	bob, err := mlsgo.NewClient([]byte("bob"), theirs.CipherSuite(number), mlsgo.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	group, err := bob.CreateGroup(ctx)
	if err != nil {
		t.Fatal(err)
	}
	taken := w.taken(t, nameOf(suite))
	_, welcome, err := bob.InviteMember(ctx, group, taken.GetMlsMessage()[4:])
	if err != nil {
		t.Fatal(err)
	}

	c := openClient(t, w.own)
	kp, err := c.Get(ctx, taken.GetRef())
	if err != nil {
		t.Fatal(err)
	}
	s.openAndRelease(t, c, nameOf(suite), welcome, func() ([]byte, error) { return bob.EpochAuthenticator(ctx, group) })
	alice, reservation, err := join(ctx, c, kp, welcome)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(ctx, reservation); err != nil {
		t.Fatalf("Confirm() err = %v, want nil", err)
	}
	if err := c.Confirm(ctx, reservation); err != nil {
		t.Errorf("Confirm() again err = %v, want nil", err)
	}
	p := &pair{alice, bob, group}
	p.talk(t)

	// A commit of bob: its path secret is encrypted to alice's leaf, whose key the service has.
	if _, ours := alice.leaf.(*client.PrivateKey); !ours {
		t.Fatalf("the leaf's key is a %T, want the service's", alice.leaf)
	}
	message, _, err := bob.CommitPendingProposals(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.process(message); err != nil {
		t.Fatalf("process() err = %v, want nil", err)
	}
	p.talk(t)
	s.leave(t, fmt.Sprintf("%s %s", suite, w.name), alice)

	// A commit of alice: a leaf node and the commit are signed.
	if message, err = alice.commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := bob.ProcessCommit(ctx, group, message); err != nil {
		t.Fatalf("mls-go: ProcessCommit() err = %v, want nil", err)
	}
	p.talk(t)
}

// openAndRelease opens a whole Welcome, as programs do that make the member themselves, and
// releases the key package.
func (s *service) openAndRelease(t *testing.T, c *client.Client, identity string, welcome []byte, authenticator func() ([]byte, error)) {
	t.Helper()
	opened, reservation, err := c.OpenWelcome(t.Context(), &hsmkpv1.OpenWelcomeRequest{Identity: identity, Welcome: welcome})
	if err != nil {
		t.Fatalf("OpenWelcome() err = %v, want nil", err)
	}
	if want, err := authenticator(); err != nil || !bytes.Equal(opened.GetEpochAuthenticator(), want) || !opened.GetSignatureVerified() {
		t.Errorf("OpenWelcome() = %x, verified: %v, want %x, %v", opened.GetEpochAuthenticator(), opened.GetSignatureVerified(), want, err)
	}
	if err := c.Release(t.Context(), reservation); err != nil {
		t.Errorf("Release() err = %v, want nil", err)
	}
}

// leave writes what a member would store, for later inspection.
func (s *service) leave(t *testing.T, name string, m *member) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.out, name), m.stored(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pair are the two members of a group.
type pair struct {
	alice *member
	bob   *mlsgo.Client
	group []byte
}

// talk checks that both are in the same epoch, and exchanges two messages in each direction.
func (p *pair) talk(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	authenticator, err := p.bob.EpochAuthenticator(ctx, p.group)
	if err != nil || !bytes.Equal(authenticator, p.alice.authenticator) {
		t.Fatalf("EpochAuthenticator() = %x, %v, want %x", authenticator, err, p.alice.authenticator)
	}
	for i := range 2 {
		text := fmt.Appendf(nil, "message %d of epoch %d", i, p.alice.context.Epoch)
		message, err := p.alice.send(ctx, text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.bob.ReceiveMessage(ctx, p.group, message); err != nil || !bytes.Equal(got.Plaintext, text) {
			t.Fatalf("mls-go: ReceiveMessage() = %v, %v, want %q", got, err, text)
		}
		if message, err = p.bob.SendMessage(ctx, p.group, text); err != nil {
			t.Fatal(err)
		}
		if got, err := p.alice.receive(message); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("receive() = %q, %v, want %q", got, err, text)
		}
	}
}
