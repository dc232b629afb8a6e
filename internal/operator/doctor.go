package operator

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

var (
	// ErrNoSuite reports a token that can serve nothing.
	ErrNoSuite = errors.New("the token can serve no cipher suite")
	// ErrKeyFault reports keys that are not as they should be.
	ErrKeyFault = errors.New("keys in the token are at fault")
)

// MaxUnconfirmed is how far a diagnosis counts what devices have not confirmed.
const MaxUnconfirmed = 1000

// Diagnosis is what Diagnose found.
type Diagnosis struct {
	Token    token.Info
	Sessions int
	Probes   []token.ProbeResult
	Suites   []SuiteDiagnosis
	Keys     []KeyDiagnosis     // that the store depends on
	Unknown  []token.ObjectInfo // labeled as this program's, and not in the store
	// Unconfirmed is how many key packages have private keys here that are for a device, up to
	// MaxUnconfirmed.
	Unconfirmed int
}

// SuiteDiagnosis says whether the token can serve a cipher suite.
type SuiteDiagnosis struct {
	Suite  ciphersuite.ID
	Served bool
	Reason string // why not
	// InToken is whether private keys can be made and used in the token, as custody token wants.
	InToken       bool
	InTokenReason string // why not
}

// Diagnose tries what the token can do, with temporary keys, and each key of it that the store
// depends on. It changes nothing. With an Operator that has no store yet, it looks at the token
// alone.
func (o *Operator) Diagnose(ctx context.Context) (*Diagnosis, error) {
	t, err := o.Token(ctx)
	if err != nil {
		return nil, err
	}
	report, err := t.Probe(ctx)
	if err != nil {
		return nil, fmt.Errorf("probe token: %w", err)
	}
	d := &Diagnosis{Token: t.Info(), Sessions: t.Sessions(), Probes: report.Results}
	for _, s := range ciphersuite.All() {
		d.Suites = append(d.Suites, diagnoseSuite(s, report))
	}
	if o.store == nil {
		return d, nil
	}
	for _, err := range o.store.KeyPackages(ctx, store.Filter{Unconfirmed: true}) {
		if err != nil {
			return d, err
		}
		if d.Unconfirmed++; d.Unconfirmed == MaxUnconfirmed {
			break
		}
	}
	return d, o.diagnoseKeys(ctx, t, d)
}

// Fault returns ErrKeyFault or ErrNoSuite if the diagnosis is a bad one.
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
func diagnoseSuite(s *ciphersuite.Suite, report token.Report) SuiteDiagnosis {
	d := SuiteDiagnosis{Suite: s.ID}
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
