package keypackage

import "fmt"

// Severity grades a finding.
type Severity int

const (
	// Warning is for what a member of a group may take and should not have to:
	// the maker broke a rule that RFC 9420 does not tell receivers to enforce,
	// or that only some receivers enforce.
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

// MarshalText returns what String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that Validate holds against a key package.
type Finding struct {
	// ID names the rule and is stable: programs may branch on it.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Section is where the rule stands, such as "RFC 9420, Section 7.2".
	Section string `json:"section"`
	// Message says in a sentence what is wrong.
	Message string `json:"message"`
	// Value is the value that breaks the rule, where there is a short one.
	Value string `json:"value,omitempty"`
}

// String returns severity, message and value in one line.
func (f Finding) String() string {
	if f.Value == "" {
		return fmt.Sprintf("%v: %s", f.Severity, f.Message)
	}
	return fmt.Sprintf("%v: %s (%s)", f.Severity, f.Message, f.Value)
}

// rule is what all findings of one kind have in common.
type rule struct {
	id       string
	severity Severity
	section  string
	message  string
}

// The rules that can be decided without a group, in the order in which they
// are looked at.
var (
	versionUnsupported = rule{"version-unsupported", Error, "RFC 9420, Section 10",
		"the protocol version is not mls10"}
	suiteUnknown = rule{"suite-unknown", Error, "RFC 9420, Section 17.1",
		"the cipher suite is unknown, so that keys and signatures cannot be checked"}
	initKeyInvalid = rule{"init-key-invalid", Error, "RFC 9420, Section 10",
		"init_key is not a public key of the cipher suite"}
	encryptionKeyInvalid = rule{"encryption-key-invalid", Error, "RFC 9420, Section 10",
		"leaf_node.encryption_key is not a public key of the cipher suite"}
	signatureKeyInvalid = rule{"signature-key-invalid", Error, "RFC 9420, Section 10",
		"leaf_node.signature_key is not a public key of the cipher suite"}
	initKeyReused = rule{"init-key-reused", Error, "RFC 9420, Section 10.1",
		"init_key and leaf_node.encryption_key are the same"}
	signatureKeyReused = rule{"signature-key-reused", Warning, "RFC 9420, Section 16.8",
		"leaf_node.signature_key serves as an HPKE key too"}

	sourceNotKeyPackage = rule{"source-not-key-package", Error, "RFC 9420, Section 7.3",
		"leaf_node.leaf_node_source is not key_package"}
	lifetimeInverted = rule{"lifetime-inverted", Error, "RFC 9420, Section 7.2",
		"the lifetime ends before it begins"}
	lifetimeExpired = rule{"lifetime-expired", Error, "RFC 9420, Section 7.3",
		"the lifetime is over"}
	lifetimeNotYetValid = rule{"lifetime-not-yet-valid", Error, "RFC 9420, Section 7.3",
		"the lifetime has not begun"}
	lifetimeTooLong = rule{"lifetime-too-long", Warning, "RFC 9420, Section 7.2",
		"the total lifetime is longer than the policy allows"}

	versionNotListed = rule{"version-not-listed", Warning, "RFC 9420, Section 7.2",
		"capabilities do not list the key package's own version"}
	suiteNotListed = rule{"suite-not-listed", Warning, "RFC 9420, Section 7.2",
		"capabilities do not list the key package's own cipher suite; some peers refuse that"}
	credentialNotListed = rule{"credential-not-listed", Error, "RFC 9420, Section 7.2",
		"capabilities do not list the type of the credential"}
	defaultExtensionListed = rule{"default-extension-listed", Warning, "RFC 9420, Section 7.2",
		"capabilities list a default extension type"}
	defaultProposalListed = rule{"default-proposal-listed", Warning, "RFC 9420, Section 7.2",
		"capabilities list a default proposal type"}

	leafExtensionNotListed = rule{"leaf-extension-not-listed", Error, "RFC 9420, Section 7.3",
		"leaf_node.extensions hold a type that capabilities do not list"}
	extensionNotListed = rule{"extension-not-listed", Error, "RFC 9420, Section 10",
		"extensions hold a type that capabilities do not list"}
	leafExtensionRepeated = rule{"leaf-extension-repeated", Error, "RFC 9420, Section 13.4",
		"leaf_node.extensions hold a type more than once"}
	extensionRepeated = rule{"extension-repeated", Error, "RFC 9420, Section 13.4",
		"extensions hold a type more than once"}
	leafExtensionMisplaced = rule{"leaf-extension-misplaced", Error, "RFC 9420, Section 17.3",
		"leaf_node.extensions hold a type that may not stand in a leaf node"}
	extensionMisplaced = rule{"extension-misplaced", Error, "RFC 9420, Section 17.3",
		"extensions hold a type that may not stand in a key package"}
	applicationIDMalformed = rule{"application-id-malformed", Warning, "RFC 9420, Section 5.3.3",
		"the data of application_id is not one vector"}
	lastResortMalformed = rule{"last-resort-malformed", Warning, "draft-ietf-mls-extensions",
		"last_resort stands in the leaf node, or has data"}

	identityEmpty = rule{"identity-empty", Warning, "RFC 9420, Section 5.3",
		"the identity of the basic credential is empty; some peers refuse that"}
	credentialUnknown = rule{"credential-unknown", Warning, "RFC 9420, Section 13.3",
		"the type of the credential is unknown, so that it cannot be checked"}
	certificatesMalformed = rule{"certificates-malformed", Error, "RFC 9420, Section 5.3",
		"the x509 credential is not a chain of certificates"}
	certificateKeyMismatch = rule{"certificate-key-mismatch", Error, "RFC 9420, Section 5.3",
		"the end-entity certificate has another key than leaf_node.signature_key"}

	leafSignatureInvalid = rule{"leaf-signature-invalid", Error, "RFC 9420, Section 7.3",
		"the signature of the leaf node does not verify"}
	signatureInvalid = rule{"signature-invalid", Error, "RFC 9420, Section 10.1",
		"the signature of the key package does not verify"}
)
