package keypackage

import (
	"fmt"
	"math"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
)

func (v *validation) credential() {
	switch c := &v.leaf.Credential; c.Type {
	case CredentialBasic:
		if len(c.Identity) == 0 {
			v.find(identityEmpty, nil)
		}
	case CredentialX509:
		v.certificates()
	default:
		v.find(credentialUnknown, c.Type)
	}
}

// chainRules maps the faults of a chain to the rules that they break.
var chainRules = map[certificate.Kind]rule{
	certificate.Expired:       certificateExpired,
	certificate.NotYetValid:   certificateNotYetValid,
	certificate.WrongUsage:    certificateUsage,
	certificate.OutOfOrder:    certificateOutOfOrder,
	certificate.MayNotSign:    certificateMayNotSign,
	certificate.TooLong:       certificatePathTooLong,
	certificate.BadSignature:  certificateSignatureInvalid,
	certificate.UnknownRoot:   certificateRootUnknown,
	certificate.NotAcceptable: certificateNotAcceptable,
}

func (v *validation) certificates() {
	chain, err := certificate.Parse(v.leaf.Credential.Certificates)
	if err != nil {
		v.find(certificatesMalformed, err)
		return
	}
	if !v.unsigned && !chain.Certifies(v.leaf.SignatureKey) {
		v.find(certificateKeyMismatch, certificate.KeyName(chain[0]))
	}
	for _, fault := range chain.Check(certificate.Options{Now: timeOf(v.policy.Now), Roots: v.policy.Roots}) {
		v.find(chainRules[fault.Kind], fault)
	}
	if v.leaf.Source != SourceKeyPackage {
		return
	}
	notBefore, notAfter := chain.Validity()
	l := v.leaf.Lifetime
	if timeOf(l.NotBefore).Before(notBefore) || timeOf(l.NotAfter).After(notAfter) {
		v.find(lifetimeBeyondCertificates, fmt.Sprintf("%s to %s, the certificates are valid from %s to %s",
			secondsText(l.NotBefore), secondsText(l.NotAfter), notBefore.UTC().Format(time.RFC3339), notAfter.UTC().Format(time.RFC3339)))
	}
}

// timeOf returns the time of Unix seconds. All those beyond what a certificate can express
// give the same time, in the far future.
func timeOf(seconds uint64) time.Time {
	return time.Unix(int64(min(seconds, math.MaxInt32*1000)), 0)
}
