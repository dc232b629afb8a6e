package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// ProbeResult is the result of trying one ability.
type ProbeResult struct {
	Name      string        `json:"name"`      // such as "sign P-256"
	Mechanism string        `json:"mechanism"` // such as "CKM_ECDSA"
	OK        bool          `json:"ok"`
	Variant   string        `json:"variant,omitempty"` // of the mechanism, if it has several: such as "SHA-256"
	Reason    string        `json:"reason,omitempty"`  // why not
	Duration  time.Duration `json:"duration_ns"`       // of the whole trial, with generating keys
}

// Report is what Probe found.
type Report struct {
	Results []ProbeResult `json:"results"`
}

// SignFault returns why the token does not sign on the curve, or nothing if it does.
func (r Report) SignFault(c Curve) string { return r.fault(signProbe(c)) }

// SealFault returns why the token does not seal by AES-256-GCM, or nothing if it does.
func (r Report) SealFault() string { return r.fault(sealProbe) }

// DecryptFault returns why the token does not decrypt by RSA-OAEP, or nothing if it does.
func (r Report) DecryptFault() string { return r.fault(decryptProbe) }

func (r Report) fault(name string) string {
	for _, result := range r.Results {
		if result.Name == name {
			return result.Reason
		}
	}
	return "not tried"
}

// CustodyFault returns why the token cannot keep private keys for HPKE on the curve wrapped under
// one of its own, or nothing if it can: it has to derive, and to wrap and unwrap by at least one
// mechanism.
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

// The names of results that methods of Report look for.
const (
	sealProbe    = "seal AES-256-GCM"
	decryptProbe = "decrypt RSA-OAEP"
)

func signProbe(c Curve) string { return "sign " + c.String() }

func deriveProbe(c Curve) string { return "derive " + c.String() }

func wrapProbe(c Curve, m KeyWrap) string {
	name := "AES-KWP"
	if m == KeyWrapPad {
		name = "AES-KW-PAD"
	}
	return fmt.Sprintf("wrap %v by %s", c, name)
}

// probe is one trial. It has a session of its own, and its keys end with that.
type probe struct {
	name      string
	mechanism string
	try       func(session) error
	variant   func(session) (string, error) // instead of try
}

// Probe finds out what the token can do by doing it, with session objects: nothing is left in the
// token. A token without session objects, such as that of tpm2-pkcs11, gets objects of its own,
// labeled "hsm-kp probe", which are destroyed after each trial. What a token refuses is in the
// report; Probe fails if the token cannot be asked.
func (t *Token) Probe(ctx context.Context) (Report, error) {
	var r Report
	for _, p := range probes() {
		start := time.Now()
		variant, err := t.probe(ctx, p)
		if err != nil && (errors.Is(err, ErrClosed) || ctx.Err() != nil) {
			return Report{}, err
		}
		result := ProbeResult{Name: p.name, Mechanism: p.mechanism, OK: err == nil, Variant: variant, Duration: time.Since(start)}
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
	case engine.FailedWith(err, engine.CKR_MECHANISM_INVALID):
		return fmt.Errorf("the module has no such mechanism: %w", err)
	case engine.FailedWith(err, engine.CKR_FUNCTION_NOT_SUPPORTED):
		return fmt.Errorf("the module has no such function: %w", err)
	}
	return err
}

func (t *Token) probe(ctx context.Context, p probe) (string, error) {
	variant, err := do(ctx, t, func(s session) (variant string, err error) {
		own, err := s.another()
		if err != nil {
			return "", err
		}
		if p.variant != nil {
			variant, err = p.variant(own)
		} else {
			err = p.try(own)
		}
		return variant, errors.Join(err, own.Close())
	})
	return variant, inWords(err)
}

func probes() []probe {
	all := []probe{
		{name: "random bytes", mechanism: "C_GenerateRandom", try: probeRandom},
		{name: "generate AES-256", mechanism: "CKM_AES_KEY_GEN", try: probeGenerateAES},
		{name: sealProbe, mechanism: "CKM_AES_GCM", try: probeSeal},
		{name: decryptProbe, mechanism: "CKM_RSA_PKCS_OAEP", variant: probeDecrypt},
	}
	for _, c := range allCurves() {
		name := "CKM_ECDSA"
		if c.params().edwards() {
			name = "CKM_EDDSA"
		}
		all = append(all, probe{name: signProbe(c), mechanism: name, try: func(s session) error { return s.probeSign(c) }})
	}
	for _, c := range []Curve{P256, P384, P521} {
		all = append(all, probe{name: deriveProbe(c), mechanism: "CKM_ECDH1_DERIVE", try: func(s session) error { return s.probeDerive(c) }})
	}
	for _, c := range []Curve{P256, P384, P521} {
		for _, m := range keyWraps {
			all = append(all, probe{name: wrapProbe(c, m), mechanism: m.String(), try: func(s session) error { return s.probeWrap(c, m) }})
		}
	}
	return append(all, probe{name: keepProbe, mechanism: "C_WrapKey", try: probeKeep})
}

// trial makes objects of the session for a trial, or of the token if it has no others. end
// destroys those of the token.
func (s session) trial(generate func(onToken bool) ([]pkcs11.ObjectHandle, error)) (made []pkcs11.ObjectHandle, end func() error, err error) {
	made, err = generate(false)
	if !engine.FailedWith(err, engine.CKR_ATTRIBUTE_VALUE_INVALID, engine.CKR_TEMPLATE_INCONSISTENT) {
		return made, func() error { return nil }, err
	}
	if made, err = generate(true); err != nil {
		return nil, nil, err
	}
	return made, func() (err error) {
		for _, o := range made {
			err = errors.Join(err, s.Destroy(o))
		}
		return err
	}, nil
}

// trialAES makes an AES key for a trial.
func (s session) trialAES(uses ...uint) (key pkcs11.ObjectHandle, end func() error, err error) {
	made, end, err := s.trial(func(onToken bool) ([]pkcs11.ObjectHandle, error) {
		h, err := s.generateAES(append(aesTemplate(onToken, uses...), attr(pkcs11.CKA_ID, idOrRandom(nil)), attr(pkcs11.CKA_LABEL, probeLabel)))
		return []pkcs11.ObjectHandle{h}, err
	})
	if err != nil {
		return 0, nil, err
	}
	return made[0], end, nil
}

// probeLabel is CKA_LABEL of the objects of a trial.
const probeLabel = "hsm-kp probe"

func probeRandom(s session) error {
	a, errA := s.Random(32)
	b, errB := s.Random(32)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if bytes.Equal(a, b) {
		return errors.New("the same bytes twice")
	}
	return nil
}

func probeGenerateAES(s session) error {
	_, end, err := s.trialAES(pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	if err != nil {
		return err
	}
	return end()
}

// probeDecrypt decrypts under an RSA key of 2048 bits, which is quicker to make than one of 3072.
func probeDecrypt(s session) (variant string, err error) {
	id := idOrRandom(nil)
	pair, end, err := s.trial(func(onToken bool) ([]pkcs11.ObjectHandle, error) {
		public, private, err := s.generateRSA(rsaBitsLeast, rsaTemplates(onToken, id, probeLabel))
		return []pkcs11.ObjectHandle{private, public}, err
	})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, end()) }()
	key, err := s.rsaPublic(pair[0], pair[1])
	if err != nil {
		return "", err
	}
	o, err := s.variantOf(pair[0], key)
	return o.String(), err
}

// probeSeal seals and opens. It checks that the nonce matters, and that other additional data is
// refused in a way that Open can tell from a broken token.
func probeSeal(s session) (err error) {
	key, end, err := s.trialAES(pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
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
