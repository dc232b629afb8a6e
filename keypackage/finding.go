package keypackage

import "fmt"

// Severity is how much a finding matters.
type Severity int

const (
	// Warning is for what a member of a group may accept: the maker broke a rule that
	// RFC 9420 does not tell receivers to enforce, or that only some receivers enforce.
	Warning Severity = iota + 1
	// Error is for what a member of a group must refuse.
	Error
)

// String returns "warning" or "error".
func (s Severity) String() string {
	switch s {
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return fmt.Sprintf("Severity(%d)", int(s))
}

// MarshalText returns the text of String. It never fails.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is a rule that a key package breaks.
type Finding struct {
	// ID names the rule. It is stable, so programs may branch on it.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Section is the source of the rule, such as "RFC 9420, Section 7.2".
	Section string `json:"section"`
	// Message describes the fault, for people. Its text may change.
	Message string `json:"message"`
	// Value is the value that breaks the rule, if there is a short one.
	Value string `json:"value,omitempty"`
}

// String returns severity, message and value in one line.
func (f Finding) String() string {
	if f.Value == "" {
		return fmt.Sprintf("%v: %s", f.Severity, f.Message)
	}
	return fmt.Sprintf("%v: %s (%s)", f.Severity, f.Message, f.Value)
}

// grade is how much a broken rule matters. The policy's Level turns it into a Severity.
type grade int

const (
	// advised is for what RFC 9420 requires of makers and does not tell receivers to
	// enforce, or what only some peers enforce.
	advised grade = iota
	// demanded is for what RFC 9420 tells those who add a client to enforce.
	demanded
	// vital is for what leaves a key package without meaning or protection: keys and
	// signatures that cannot be used or trusted, bytes that can be read in two ways.
	vital
)

// Level is how strict a policy is.
type Level int

const (
	// LevelRFC has an Error for what RFC 9420 tells those who add a client to
	// refuse, and a Warning for the rest.
	LevelRFC Level = iota
	// LevelStrict has an Error for everything. It is for one's own key packages before
	// they are published.
	LevelStrict
	// LevelLenient has an Error only for what leaves a key package without
	// meaning or protection, and a Warning for the rest.
	LevelLenient
)

// severity returns the severity of a rule of grade g at this level.
func (l Level) severity(g grade) Severity {
	if l == LevelStrict || g == vital || l == LevelRFC && g == demanded {
		return Error
	}
	return Warning
}

// rule is what the findings of one kind have in common.
type rule struct {
	id      string
	grade   grade
	section string
	message string
}

// rules has all rules in the order of their declaration.
var rules []rule

func newRule(id string, g grade, section, message string) rule {
	r := rule{id, g, section, message}
	rules = append(rules, r)
	return r
}

// Rule describes the findings of one kind.
type Rule struct {
	// ID, Section and Message are those of its findings.
	ID      string `json:"id"`
	Section string `json:"section"`
	Message string `json:"message"`
	// Strict, RFC and Lenient are the severities at the three levels.
	Strict  Severity `json:"strict"`
	RFC     Severity `json:"rfc"`
	Lenient Severity `json:"lenient"`
}

// Rules returns all rules in the order of the fields that they are about. The slice is the
// caller's.
func Rules() []Rule {
	out := make([]Rule, len(rules))
	for i, r := range rules {
		out[i] = Rule{r.id, r.section, r.message, LevelStrict.severity(r.grade), LevelRFC.severity(r.grade), LevelLenient.severity(r.grade)}
	}
	return out
}

// The rules that can be checked without a group, by field.
var (
	versionUnsupported = newRule("version-unsupported", vital, "RFC 9420, Section 10",
		"the protocol version is not mls10")
	suiteUnknown = newRule("suite-unknown", vital, "RFC 9420, Section 17.1",
		"the cipher suite is unknown, so that keys and signatures cannot be checked")
	initKeyInvalid = newRule("init-key-invalid", vital, "RFC 9420, Section 10",
		"init_key is not a public key of the cipher suite")
	encryptionKeyInvalid = newRule("encryption-key-invalid", vital, "RFC 9420, Section 10",
		"leaf_node.encryption_key is not a public key of the cipher suite")
	signatureKeyInvalid = newRule("signature-key-invalid", vital, "RFC 9420, Section 10",
		"leaf_node.signature_key is not a public key of the cipher suite")
	initKeyReused = newRule("init-key-reused", vital, "RFC 9420, Section 10.1",
		"init_key and leaf_node.encryption_key are the same")
	signatureKeyReused = newRule("signature-key-reused", advised, "RFC 9420, Section 16.8",
		"leaf_node.signature_key is also an HPKE key")

	sourceNotKeyPackage = newRule("source-not-key-package", vital, "RFC 9420, Section 7.3",
		"leaf_node.leaf_node_source is not key_package")
	lifetimeInverted = newRule("lifetime-inverted", vital, "RFC 9420, Section 7.2",
		"the lifetime ends before it begins")
	lifetimeExpired = newRule("lifetime-expired", demanded, "RFC 9420, Section 7.3",
		"the lifetime is over")
	lifetimeNotYetValid = newRule("lifetime-not-yet-valid", demanded, "RFC 9420, Section 7.3",
		"the lifetime has not begun")
	lifetimeTooLong = newRule("lifetime-too-long", advised, "RFC 9420, Section 7.2",
		"the total lifetime is longer than the policy allows")

	versionNotListed = newRule("version-not-listed", advised, "RFC 9420, Section 7.2",
		"capabilities do not list the key package's own version")
	suiteNotListed = newRule("suite-not-listed", advised, "RFC 9420, Section 7.2",
		"capabilities do not list the key package's own cipher suite; some peers refuse that")
	credentialNotListed = newRule("credential-not-listed", demanded, "RFC 9420, Section 7.2",
		"capabilities do not list the type of the credential")
	defaultExtensionListed = newRule("default-extension-listed", advised, "RFC 9420, Section 7.2",
		"capabilities list a default extension type")
	defaultProposalListed = newRule("default-proposal-listed", advised, "RFC 9420, Section 7.2",
		"capabilities list a default proposal type")

	leafExtensionNotListed = newRule("leaf-extension-not-listed", demanded, "RFC 9420, Section 7.3",
		"leaf_node.extensions hold a type that capabilities do not list")
	extensionNotListed = newRule("extension-not-listed", advised, "RFC 9420, Section 10",
		"extensions hold a type that capabilities do not list")
	leafExtensionRepeated = newRule("leaf-extension-repeated", vital, "RFC 9420, Section 13.4",
		"leaf_node.extensions hold a type more than once")
	extensionRepeated = newRule("extension-repeated", vital, "RFC 9420, Section 13.4",
		"extensions hold a type more than once")
	leafExtensionMisplaced = newRule("leaf-extension-misplaced", demanded, "RFC 9420, Section 17.3",
		"leaf_node.extensions hold a type that is not allowed in a leaf node")
	extensionMisplaced = newRule("extension-misplaced", demanded, "RFC 9420, Section 17.3",
		"extensions hold a type that is not allowed in a key package")
	applicationIDMalformed = newRule("application-id-malformed", advised, "RFC 9420, Section 5.3.3",
		"the data of application_id is not one vector")
	lastResortMalformed = newRule("last-resort-malformed", advised, "draft-ietf-mls-extensions",
		"last_resort is in the leaf node, or has data")

	identityEmpty = newRule("identity-empty", advised, "RFC 9420, Section 5.3",
		"the identity of the basic credential is empty; some peers refuse that")
	credentialUnknown = newRule("credential-unknown", advised, "RFC 9420, Section 13.3",
		"the type of the credential is unknown, so that it cannot be checked")
	certificatesMalformed = newRule("certificates-malformed", vital, "RFC 9420, Section 5.3",
		"the x509 credential is not a chain of certificates")
	certificateKeyMismatch = newRule("certificate-key-mismatch", vital, "RFC 9420, Section 5.3",
		"the end-entity certificate has another key than leaf_node.signature_key")

	certificateOutOfOrder = newRule("certificate-out-of-order", advised, "RFC 9420, Section 5.3",
		"a certificate was not issued by the one after it")
	certificateSignatureInvalid = newRule("certificate-signature-invalid", demanded, "RFC 5280, Section 6.1.3",
		"the signature of a certificate does not verify, or uses a broken algorithm")
	certificateExpired = newRule("certificate-expired", demanded, "RFC 9420, Section 5.3.2",
		"a certificate has expired")
	certificateNotYetValid = newRule("certificate-not-yet-valid", demanded, "RFC 5280, Section 6.1.3",
		"a certificate is not yet valid")
	certificateMayNotSign = newRule("certificate-may-not-sign", demanded, "RFC 5280, Section 6.1.4",
		"the issuer of a certificate is not a CA")
	certificatePathTooLong = newRule("certificate-path-too-long", demanded, "RFC 5280, Section 6.1.4",
		"the path below a CA certificate is longer than it allows")
	certificateUsage = newRule("certificate-usage", demanded, "RFC 5280, Section 4.2.1.3",
		"the end entity's key usage does not let it sign")
	certificateRootUnknown = newRule("certificate-root-unknown", demanded, "RFC 9420, Section 5.3.1",
		"the chain does not lead to any of the given roots")
	certificateNotAcceptable = newRule("certificate-not-acceptable", demanded, "RFC 5280, Section 6.1",
		"the chain breaks a rule of X.509")
	lifetimeBeyondCertificates = newRule("lifetime-beyond-certificates", advised, "RFC 9420, Section 5.3.2",
		"the lifetime is not within that of the certificates")

	greaseMisplaced = newRule("grease-misplaced", advised, "RFC 9420, Section 13.5",
		"a GREASE value is in a field where peers refuse it or RFC 9420 does not provide for it")
	requiredCapabilityMissing = newRule("required-capability-missing", demanded, "RFC 9420, Section 7.3",
		"capabilities lack what the groups require")

	leafSignatureInvalid = newRule("leaf-signature-invalid", vital, "RFC 9420, Section 7.3",
		"the signature of the leaf node does not verify")
	signatureInvalid = newRule("signature-invalid", vital, "RFC 9420, Section 10.1",
		"the signature of the key package does not verify")
)
