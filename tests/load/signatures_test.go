package load

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

// The token with which signatures are measured: how long a call takes, and how many sessions it
// has.
const (
	latency  = 5 * time.Millisecond
	sessions = 32
)

// askedSignatures is the required share of what the sessions can sign that the service delivers.
const askedSignatures = 0.9

// measureSignatures lets the service sign, over each store, and a bare loop over as many sessions
// of the same token, in turn.
func measureSignatures(t *testing.T, bin string, results *table) {
	path, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	on, m := fresh(t, bin), tokentest.New(t, path)
	on.Run("identity", "create", alice)
	on.Edit(fmt.Sprintf("module: %q", path), fmt.Sprintf("module: %q", m.Path))
	on.Edit("sessions: 8", fmt.Sprintf("sessions: %d", sessions))
	t.Run("SQLite", func(t *testing.T) { measureSignaturesOver(t, results, on, m, "SQLite") })
	onPostgres(on, postgrestest.Start(t, postgrestest.Options{Durable: *durable}).Database(t))
	t.Run("PostgreSQL", func(t *testing.T) { measureSignaturesOver(t, results, on, m, "PostgreSQL") })
}

func measureSignaturesOver(t *testing.T, results *table, on *program.Installation, m *tokentest.Module, backend string) {
	f := newFleet(t, on, 1, max(*clients, 2*sessions)) // as many clients wait as get signatures
	f.connect()
	db := f.store()
	since := length(t, db)
	record, err := db.Identity(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	s := &signing{T: t, fleet: f, record: record, suite: suiteOf(t, record.Suite)}
	defer m.SetLatency(0)
	key := s.bareKey(m)
	var ratios, bare, served []float64
	for round := range *rounds + 1 {
		m.SetLatency(latency)
		loop := s.bareLoop(key)
		calls := m.Calls("C_SignInit") + m.Calls("C_Sign")
		d := s.drive()
		calls = m.Calls("C_SignInit") + m.Calls("C_Sign") - calls
		if err := errors.Join(d.failed...); err != nil {
			t.Fatalf("SignWithLabel() err = %v, want nil", err)
		}
		t.Logf("%s, round %d: bare loop %.0f/s, service %v, %.2f calls a signature", backend, round, loop, d.String(), float64(calls)/float64(len(d.times)))
		if round == 0 {
			continue // keys are copied, and the faster way to use them is determined
		}
		bare, served, ratios = append(bare, loop), append(served, d.perSecond()), append(ratios, d.perSecond()/loop)
	}
	ratio := median(ratios)
	results.add(t, figure{
		what:  fmt.Sprintf("SignWithLabel, token of %v a call, %d sessions, %s", latency, sessions, backend),
		asked: fmt.Sprint(askedSignatures), ratio: fmt.Sprintf("%.2f", ratio), missed: ratio < askedSignatures, broken: ratio < askedSignatures/noise,
		measured: fmt.Sprintf("%.0f/s against %.0f/s bare, %.0f/s nominal", median(served), median(bare), sessions/(2*latency).Seconds()),
		how:      fmt.Sprintf("%d clients over mutual TLS; C_SignInit and C_Sign over %d sessions; median of %d rounds", len(f.clients), sessions, *rounds),
	})
	s.checkTrail(db, since)
	on.Run("audit", "verify")
}

// median returns the median; for an even number, it is the mean of the two in the middle.
func median(of []float64) float64 {
	sorted, n := slices.Sorted(slices.Values(of)), len(of)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// signing measures signatures over one store.
type signing struct {
	*testing.T
	*fleet
	record store.Identity
	suite  *ciphersuite.Suite
	made   atomic.Int64 // signatures that clients got
}

func suiteOf(t *testing.T, id uint16) *ciphersuite.Suite {
	t.Helper()
	suite, ok := ciphersuite.Lookup(ciphersuite.ID(id))
	if !ok {
		t.Fatalf("there is no suite %d", id)
	}
	return suite
}

// drive lets all clients sign for a while.
func (s *signing) drive() measured {
	p := &pace{clients: s.clients, n: 1 << 30, until: time.Now().Add(*period)}
	return p.drive(func(c *client, n int) error {
		content := message(s.suite.ID, fmt.Appendf(nil, "%s at %v", c.uri, time.Now()))
		signature, err := s.sign(c, content)
		if err == nil && s.made.Add(1)%64 == 0 { // the service verifies all; here only some are verified
			err = s.verify(content, signature)
		}
		return err
	})
}

func (s *signing) sign(c *client, content []byte) ([]byte, error) {
	r, err := c.apis[0].SignWithLabel(context.WithoutCancel(s.Context()), connect.NewRequest(&hsmkpv1.SignWithLabelRequest{Identity: alice, Label: labelContent, Content: content}))
	if err != nil {
		return nil, err
	}
	return r.Msg.GetSignature(), nil
}

func (s *signing) verify(content, signature []byte) error {
	public, err := s.suite.Signature.ParsePublicKey(s.record.SignatureKey)
	if err != nil {
		return err
	}
	return public.VerifyWithLabel(labelContent, content, signature)
}

// labelContent is the label of messages (RFC 9420, Section 6.1).
const labelContent = "FramedContentTBS"

// message returns the FramedContentTBS of an application message from the member at leaf 0 of a
// group, in a PrivateMessage (RFC 9420, Section 6.1).
func message(suite ciphersuite.ID, text []byte) []byte {
	group := keypackage.GroupContext{Version: keypackage.MLS10, CipherSuite: suite, GroupID: []byte("load"), Epoch: 7}
	out := []byte{0, 1, 0, 2} // mls10, mls_private_message
	out = wire.AppendVector(out, group.GroupID)
	out = append(out, 0, 0, 0, 0, 0, 0, 0, 7) // epoch
	out = append(out, 1, 0, 0, 0, 0)          // sender: member, leaf 0
	out = wire.AppendVector(out, nil)         // authenticated_data
	out = append(out, 1)                      // application
	out = wire.AppendVector(out, text)
	return append(out, group.Bytes()...)
}

// bareKey opens the token in this process, through the same module, and finds the key.
func (s *signing) bareKey(m *tokentest.Module) *token.SigningKey {
	s.Helper()
	tok, done, err := s.on.OpenToken(s.Context(), func(c *token.Config) { c.Module, c.Sessions = m.Path, sessions })
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(done)
	key, err := tok.FindKeyPair(s.Context(), token.KeyQuery{ID: s.record.KeyID})
	if err != nil {
		s.Fatal(err)
	}
	return key
}

// bareLoop only signs, for a while, on as many goroutines as there are sessions, and returns the
// number of signatures a second.
func (s *signing) bareLoop(key *token.SigningKey) float64 {
	s.Helper()
	digest := sha256.Sum256([]byte("the same for all"))
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range sessions {
		wg.Go(func() {
			for time.Since(start) < *period {
				if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					s.Errorf("Sign() err = %v, want nil", err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds()
}

// checkTrail checks that the trail has exactly the signatures that clients got.
func (s *signing) checkTrail(db store.Store, since uint64) {
	s.Helper()
	var n int64
	for e := range trail(s, db, since) {
		if e.Act == audit.Signed && e.Identity == alice && e.Detail == labelContent {
			n++
		}
	}
	if n != s.made.Load() {
		s.Errorf("the trail has %d signatures, and %d were given out", n, s.made.Load())
	}
}
