package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

// ProbeResult tells how one ability was tried.
type ProbeResult struct {
	Name      string        `json:"name"`      // such as "sign P-256"
	Mechanism string        `json:"mechanism"` // such as "CKM_ECDSA"
	OK        bool          `json:"ok"`
	Reason    string        `json:"reason,omitempty"` // why not
	Duration  time.Duration `json:"duration_ns"`      // of the whole trial, keys generated included
}

// Report is what Probe found.
type Report struct {
	Results []ProbeResult `json:"results"`
}

// CanSign says whether the token signs on the curve.
func (r Report) CanSign(c Curve) bool { return r.SignFault(c) == "" }

// CanSeal says whether the token seals by AES-256-GCM.
func (r Report) CanSeal() bool { return r.SealFault() == "" }

// SignFault says why the token does not sign on the curve, nothing where it does.
func (r Report) SignFault(c Curve) string { return r.fault(signProbe(c)) }

// SealFault says why the token does not seal by AES-256-GCM, nothing where it does.
func (r Report) SealFault() string { return r.fault(sealProbe) }

func (r Report) fault(name string) string {
	for _, result := range r.Results {
		if result.Name == name {
			return result.Reason
		}
	}
	return "not tried"
}

// CustodyFault says why the token cannot keep private keys for HPKE on the curve
// wrapped under one of its own, nothing where it can: it has to derive, and to wrap
// and unwrap by at least one mechanism.
func (r Report) CustodyFault(c Curve) string {
	if fault := r.fault(deriveProbe(c)); fault != "" {
		return fault
	}
	var faults []string
	for _, m := range keyWraps {
		fault := r.fault(wrapProbe(c, m))
		if fault == "" {
			return ""
		}
		faults = append(faults, fmt.Sprintf("%v: %s", m, fault))
	}
	return strings.Join(faults, "; ")
}

// These name the results that the Report is asked for.
const sealProbe = "seal AES-256-GCM"

func signProbe(c Curve) string { return "sign " + c.String() }

func deriveProbe(c Curve) string { return "derive " + c.String() }

func wrapProbe(c Curve, m KeyWrap) string {
	name := "AES-KWP"
	if m == KeyWrapPad {
		name = "AES-KW-PAD"
	}
	return fmt.Sprintf("wrap %v by %s", c, name)
}

// probe is one trial. It has a session of its own, whose keys go with it.
type probe struct {
	name      string
	mechanism string
	try       func(*session) error
}

// Probe finds out what the token really does by doing it, with session objects:
// nothing is left in the token. What a token refuses is in the report; the error
// is for a token that cannot be asked.
func (t *Token) Probe(ctx context.Context) (Report, error) {
	var r Report
	for _, p := range probes() {
		start := time.Now()
		err := t.probe(ctx, p)
		if err != nil && (errors.Is(err, ErrClosed) || ctx.Err() != nil) {
			return Report{}, err
		}
		result := ProbeResult{Name: p.name, Mechanism: p.mechanism, OK: err == nil, Duration: time.Since(start)}
		if err != nil {
			result.Reason = err.Error()
		}
		r.Results = append(r.Results, result)
	}
	return r, nil
}

// inWords says plainly what a module lacks.
func inWords(err error) error {
	switch {
	case failedWith(err, CKR_MECHANISM_INVALID):
		return fmt.Errorf("the module has no such mechanism: %w", err)
	case failedWith(err, CKR_FUNCTION_NOT_SUPPORTED):
		return fmt.Errorf("the module has no such function: %w", err)
	}
	return err
}

func (t *Token) probe(ctx context.Context, p probe) error {
	return inWords(run(ctx, t, func(s *session) error {
		own, err := s.link.openSession()
		if err != nil {
			return err
		}
		own.pulse, own.logins = s.pulse, s.logins
		return errors.Join(p.try(own), own.close())
	}))
}

func probes() []probe {
	all := []probe{
		{"random bytes", "C_GenerateRandom", probeRandom},
		{"generate AES-256", "CKM_AES_KEY_GEN", probeGenerateAES},
		{sealProbe, "CKM_AES_GCM", probeSeal},
	}
	for _, c := range Curves() {
		name := "CKM_ECDSA"
		if c.params().edwards() {
			name = "CKM_EDDSA"
		}
		all = append(all, probe{signProbe(c), name, func(s *session) error { return s.probeSign(c) }})
	}
	for _, c := range []Curve{P256, P384, P521} {
		all = append(all, probe{deriveProbe(c), "CKM_ECDH1_DERIVE", func(s *session) error { return s.probeDerive(c) }})
	}
	for _, c := range []Curve{P256, P384, P521} {
		for _, m := range keyWraps {
			all = append(all, probe{wrapProbe(c, m), m.String(), func(s *session) error { return s.probeWrap(c, m) }})
		}
	}
	return append(all, probe{name: keepProbe, mechanism: "C_WrapKey", try: probeKeep})
}

func probeRandom(s *session) error {
	a, errA := s.random(32)
	b, errB := s.random(32)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if bytes.Equal(a, b) {
		return errors.New("the same bytes twice")
	}
	return nil
}

func probeGenerateAES(s *session) error {
	_, err := s.generateAES(aesTemplate(false, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT))
	return err
}

// probeSeal seals and opens, and sees that the nonce matters and that other
// additional data is refused, the way that Open tells from a broken token.
func probeSeal(s *session) error {
	key, err := s.generateAES(aesTemplate(false, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT))
	if err != nil {
		return err
	}
	plaintext, aad := []byte("probe of hsm-kp"), []byte("additional data")
	nonce, other := [NonceSize]byte{1}, [NonceSize]byte{2}
	made, err := s.seal(key, nonce, plaintext, aad)
	if err != nil {
		return err
	}
	again, err := s.seal(key, other, plaintext, aad)
	if err != nil {
		return err
	}
	if made.nonce == again.nonce {
		return errors.New("makes the same nonce twice")
	}
	if bytes.Equal(made.ciphertext, again.ciphertext) {
		return errors.New("another nonce gives the same ciphertext")
	}
	opened, err := s.open(key, made.nonce, made.ciphertext, aad)
	if err != nil {
		return err
	}
	if !bytes.Equal(opened, plaintext) {
		return errors.New("what was sealed opens as something else")
	}
	_, err = s.open(key, made.nonce, made.ciphertext, []byte("other data"))
	if err == nil {
		return errors.New("opens under other additional data")
	}
	if !errors.Is(err, ErrDecrypt) {
		return fmt.Errorf("other additional data: %w", err)
	}
	return nil
}
