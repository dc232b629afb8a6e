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

// Policy is what a key package is held against beyond RFC 9420.
type Policy struct {
	// Now is the time at which the lifetime and certificates are looked at, in
	// seconds since 1970-01-01T00:00:00Z.
	Now uint64
	// MaxLifetime is the longest total lifetime that draws no finding, in
	// seconds; 0 is no limit. RFC 9420, Section 7.2, wants applications to
	// have one and leaves the number to them.
	MaxLifetime uint64
	// Level says which findings are errors.
	Level Level
	// Roots are the trust anchors of X.509 credentials; nil where they are not
	// known, so that every anchor is taken.
	Roots *x509.CertPool
	// Required is what the groups require that the client is to join.
	Required RequiredCapabilities
}

// Report is what Validate found.
type Report struct {
	// Findings stand in the order of the key package's fields, signatures last.
	Findings []Finding
	verified *Verified
}

// OK reports whether no finding is an Error.
func (r Report) OK() bool { return r.verified != nil }

// Verified returns the key package, as it was when it was validated, where OK
// is true.
func (r Report) Verified() (*Verified, bool) { return r.verified, r.verified != nil }

// Validate holds a key package against everything in RFC 9420 that can be
// decided without a group: Sections 5.3, 7.2, 7.3, 10, 10.1, 13.4 and 17.3. It
// tells all findings, not the first. The policy's Level says which of them are
// errors.
//
// What needs a group is left to its members: that version and suite are the
// group's, that keys are unique in it. What needs an authentication service is
// left to it: which names a credential may carry, and revocation. Chains of X.509
// certificates are checked as package certificate does.
//
// GREASE values are handled like all unknown ones (Section 13.5).
//
// The leaf node's signature is checked where its source is key_package; that of
// another source is signed with a group. No signature is checked where its key
// is invalid or the cipher suite is unknown.
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

// ValidateUnsigned is Validate for a key package that has no keys and no signatures
// yet, such as Template.Unsigned returns: it leaves out what is about them.
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
	suite    *ciphersuite.Suite     // nil where it is unknown
	public   *ciphersuite.PublicKey // nil where signature_key is invalid
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

// fields looks at everything but the signatures.
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
		return // and there is no lifetime
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

// secondsText returns Unix seconds as a date where they have one.
func secondsText(seconds uint64) string {
	if date := dateOf(seconds); date != "" {
		return date
	}
	return fmt.Sprint(seconds)
}
