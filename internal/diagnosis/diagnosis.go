// Package diagnosis tests what a token can do, and every key that a store depends on.
package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

var (
	// ErrNoSuite reports a token that can serve no cipher suite.
	ErrNoSuite = errors.New("the token can serve no cipher suite")
	// ErrKeyFault reports keys that are not as they should be.
	ErrKeyFault = errors.New("keys in the token are at fault")
)

// MaxUnconfirmed is how far a diagnosis counts key packages that devices have not confirmed.
const MaxUnconfirmed = 1000

// Diagnosis is the result.
type Diagnosis struct {
	Token    token.Info
	Sessions int
	Probes   []token.ProbeResult
	Suites   []Suite
	Keys     []Key              // that the store depends on
	Unknown  []token.ObjectInfo // labeled as this program's, and not in the store
	// Unconfirmed is how many key packages have private keys here that are for a device, up to
	// MaxUnconfirmed.
	Unconfirmed int
}

// Suite says whether the token can serve a cipher suite.
type Suite struct {
	Suite  ciphersuite.ID
	Served bool
	Reason string // why not
	// InToken is whether private keys can be made and used in the token, as custody token requires.
	InToken       bool
	InTokenReason string // why not
}

// Store is what a diagnosis reads of a store.
type Store interface {
	KeyPackages(ctx context.Context, f store.Filter) iter.Seq2[store.KeyPackage, error]
	WrappingKeys(ctx context.Context) ([]store.WrappingKey, error)
	Identities(ctx context.Context) ([]store.Identity, error)
	Versions(ctx context.Context, name string) ([]store.Identity, error)
	AuditKeys(ctx context.Context) ([]store.AuditKey, error)
}

// Subject is what to diagnose. All fields are required, except that the store may be nil to
// diagnose the token alone.
type Subject struct {
	Token     *token.Token
	Store     Store
	Inventory *inventory.Inventory // over both
	Rand      io.Reader
}

// Diagnose tests what the token can do, with temporary keys, and each key in it that the store
// depends on. It changes nothing.
func (s *Subject) Diagnose(ctx context.Context) (*Diagnosis, error) {
	report, err := s.Token.Probe(ctx)
	if err != nil {
		return nil, fmt.Errorf("probe token: %w", err)
	}
	d := &Diagnosis{Token: s.Token.Info(), Sessions: s.Token.Sessions(), Probes: report.Results}
	for _, suite := range ciphersuite.All() {
		d.Suites = append(d.Suites, diagnoseSuite(suite, report))
	}
	if s.Store == nil {
		return d, nil
	}
	for _, err := range s.Store.KeyPackages(ctx, store.Filter{Unconfirmed: true}) {
		if err != nil {
			return d, err
		}
		if d.Unconfirmed++; d.Unconfirmed == MaxUnconfirmed {
			break
		}
	}
	return d, s.diagnoseKeys(ctx, d)
}

// Fault returns ErrKeyFault if a key is at fault, ErrNoSuite if the token can serve no suite, or nil.
func (d *Diagnosis) Fault() error {
	for _, k := range d.Keys {
		if !k.OK {
			return ErrKeyFault
		}
	}
	for _, s := range d.Suites {
		if s.Served {
			return nil
		}
	}
	return ErrNoSuite
}

// diagnoseSuite says whether a token with this report can serve a suite.
func diagnoseSuite(s *ciphersuite.Suite, report token.Report) Suite {
	d := Suite{Suite: s.ID}
	curve, known := signer.Curve(s.Signature)
	switch {
	case !known:
		d.Reason = "hsm-kp has no such keys"
	case report.SignFault(curve) != "":
		d.Reason = fmt.Sprintf("the token does not sign with %v: %s", s.Signature, report.SignFault(curve))
	case report.SealFault() != "" && report.DecryptFault() != "":
		d.Reason = "the token cannot seal private keys: " + report.SealFault() + "; " + report.DecryptFault()
	case report.SealFault() != "" && report.SignFault(token.P256) != "":
		d.Reason = "the token cannot stamp records: it does not sign with P-256, and " + report.SealFault()
	default:
		d.Served = true
	}
	err := vault.Keepable(s)
	switch {
	case err != nil:
		d.InTokenReason = err.Error()
	case report.CustodyFault(curve) != "":
		d.InTokenReason = report.CustodyFault(curve)
	default:
		d.InToken = true
	}
	return d
}
