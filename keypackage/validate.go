package keypackage

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// Policy is what Validate checks a key package against, beside RFC 9420.
type Policy struct {
	// Now is the time at which the lifetime and the certificates must be valid, in
	// seconds since 1970-01-01T00:00:00Z.
	Now uint64
	// MaxLifetime is the longest total lifetime that is no finding, in seconds; 0 means
	// no limit. RFC 9420, Section 7.2, requires applications to define a limit.
	MaxLifetime uint64
	// Level decides which findings are errors.
	Level Level
	// Roots are the trust anchors of X.509 credentials; nil accepts every anchor.
	Roots *x509.CertPool
	// Required is what the groups that the client is to join require.
	Required RequiredCapabilities
}

// Report is the result of Validate.
type Report struct {
	// Findings are in the order of the key package's fields, signatures last.
	Findings []Finding
	verified *Verified
}

// OK reports whether no finding is an Error.
func (r Report) OK() bool { return r.verified != nil }

// Verified returns the key package as it was when Validate checked it, and whether OK is
// true. It is nil if OK is false.
func (r Report) Verified() (*Verified, bool) { return r.verified, r.verified != nil }

// Validate checks a key package against everything in RFC 9420 that can be checked without a
// group: Sections 5.3, 7.2, 7.3, 10, 10.1, 13.4 and 17.3. It returns all findings, not the
// first. The policy's Level decides which of them are errors.
//
// The members of a group check what needs a group: that version and suite are the group's,
// and that keys are unique in it. The authentication service checks which names a credential
// may have, and revocation. Validate checks chains of X.509 certificates as RFC 5280, Section
// 6, asks, by crypto/x509.
//
// GREASE values are treated as any other unknown value (Section 13.5).
//
// The signature of the leaf node is checked if its source is key_package; with another source
// it covers a group too. No signature is checked if its key is invalid or the cipher suite
// is unknown.
func Validate(kp *KeyPackage, p Policy) Report {
	v := validation{kp: kp, leaf: &kp.LeafNode, policy: p}
	v.fields()
	e := kp.encode()
	v.signatures(e)
	report := Report{Findings: v.findings}
	if !slices.ContainsFunc(v.findings, func(f Finding) bool { return f.Severity == Error }) {
		report.verified = newVerified(v.suite, e)
	}
	return report
}

// ValidateUnsigned does what Validate does for a key package without keys and signatures, as
// Template.Unsigned returns one, and leaves out the rules about these.
func ValidateUnsigned(kp *KeyPackage, p Policy) []Finding {
	v := validation{kp: kp, leaf: &kp.LeafNode, policy: p, unsigned: true}
	v.fields()
	return v.findings
}

// validation is the state of one Validate.
type validation struct {
	kp       *KeyPackage
	leaf     *LeafNode
	policy   Policy
	unsigned bool                   // there are no keys yet
	suite    *ciphersuite.Suite     // nil if it is unknown
	public   *ciphersuite.PublicKey // nil if signature_key is invalid
	findings []Finding
}

// find adds a finding. value is what breaks the rule, or nil.
func (v *validation) find(r rule, value any) {
	f := Finding{ID: r.id, Severity: v.policy.Level.severity(r.grade), Section: r.section, Message: r.message}
	if value != nil {
		f.Value = fmt.Sprint(value)
	}
	v.findings = append(v.findings, f)
}

// fields checks everything but the signatures.
func (v *validation) fields() {
	v.suiteAndKeys()
	v.leafNode()
	v.capabilities()
	v.extensions()
	v.credential()
}

func (v *validation) suiteAndKeys() {
	if v.kp.Version != MLS10 {
		v.find(versionUnsupported, v.kp.Version)
	}
	switch suite, ok := ciphersuite.Lookup(v.kp.CipherSuite); {
	case !ok:
		v.find(suiteUnknown, v.kp.CipherSuite)
	default:
		v.suite = suite
	}
	if v.unsigned {
		return
	}
	if v.suite != nil {
		v.keys()
	}
	if bytes.Equal(v.kp.InitKey, v.leaf.EncryptionKey) {
		v.find(initKeyReused, nil)
	}
	if bytes.Equal(v.leaf.SignatureKey, v.leaf.EncryptionKey) || bytes.Equal(v.leaf.SignatureKey, v.kp.InitKey) {
		v.find(signatureKeyReused, nil)
	}
}

func (v *validation) keys() {
	if err := hpke.ValidPublicKey(v.suite, v.kp.InitKey); err != nil {
		v.find(initKeyInvalid, err)
	}
	if err := hpke.ValidPublicKey(v.suite, v.leaf.EncryptionKey); err != nil {
		v.find(encryptionKeyInvalid, err)
	}
	var err error
	if v.public, err = v.suite.Signature.ParsePublicKey(v.leaf.SignatureKey); err != nil {
		v.find(signatureKeyInvalid, err)
	}
}

func (v *validation) leafNode() {
	if v.leaf.Source != SourceKeyPackage {
		v.find(sourceNotKeyPackage, v.leaf.Source)
		return // without a lifetime
	}
	l := v.leaf.Lifetime
	switch {
	case l.NotAfter < l.NotBefore:
		v.find(lifetimeInverted, fmt.Sprintf("not_before %d, not_after %d", l.NotBefore, l.NotAfter))
		return
	case v.policy.Now < l.NotBefore:
		v.find(lifetimeNotYetValid, fmt.Sprintf("not_before %s", secondsText(l.NotBefore)))
	case v.policy.Now > l.NotAfter:
		v.find(lifetimeExpired, fmt.Sprintf("not_after %s", secondsText(l.NotAfter)))
	}
	if total := l.NotAfter - l.NotBefore; v.policy.MaxLifetime > 0 && total > v.policy.MaxLifetime {
		v.find(lifetimeTooLong, fmt.Sprintf("%d s, allowed are %d s", total, v.policy.MaxLifetime))
	}
}

func (v *validation) capabilities() {
	c := &v.leaf.Capabilities
	if !slices.Contains(c.Versions, v.kp.Version) {
		v.find(versionNotListed, v.kp.Version)
	}
	if !slices.Contains(c.CipherSuites, v.kp.CipherSuite) {
		v.find(suiteNotListed, v.kp.CipherSuite)
	}
	if !slices.Contains(c.Credentials, v.leaf.Credential.Type) {
		v.find(credentialNotListed, v.leaf.Credential.Type)
	}
	for t := ExtensionApplicationID; t.Default(); t++ {
		if slices.Contains(c.Extensions, t) {
			v.find(defaultExtensionListed, t)
		}
	}
	for t := ProposalAdd; t.Default(); t++ {
		if slices.Contains(c.Proposals, t) {
			v.find(defaultProposalListed, t)
		}
	}
	if i := slices.IndexFunc(c.Versions, grease); i >= 0 {
		v.find(greaseMisplaced, fmt.Sprintf("capabilities.versions, %v", c.Versions[i]))
	}
	if grease(v.leaf.Credential.Type) {
		v.find(greaseMisplaced, fmt.Sprintf("credential_type, %v", v.leaf.Credential.Type))
	}
	if missing := c.Missing(v.policy.Required); len(missing) > 0 {
		v.find(requiredCapabilityMissing, strings.Join(missing, ", "))
	}
}

func (v *validation) signatures(e encoding) {
	if v.public == nil {
		return
	}
	if v.leaf.Source == SourceKeyPackage && v.public.VerifyWithLabel(labelLeafNode, e.leafNodeTBS(), v.leaf.Signature) != nil {
		v.find(leafSignatureInvalid, nil)
	}
	if v.public.VerifyWithLabel(labelKeyPackage, e.keyPackageTBS(), v.kp.Signature) != nil {
		v.find(signatureInvalid, nil)
	}
}

// secondsText returns Unix seconds as a date if there is one.
func secondsText(seconds uint64) string {
	if date := dateOf(seconds); date != "" {
		return date
	}
	return fmt.Sprint(seconds)
}
