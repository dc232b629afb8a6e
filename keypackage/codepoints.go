package keypackage

import (
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/stringer"
)

// ProtocolVersion is the version of MLS (RFC 9420, Section 6); uint16 on the
// wire.
type ProtocolVersion uint16

// MLS10 is the version that RFC 9420 defines.
const MLS10 ProtocolVersion = 1

var versionNames = map[ProtocolVersion]string{MLS10: "mls10"}

// String returns the name in the RFC, or the number in hexadecimal.
func (v ProtocolVersion) String() string { return nameOf(v, versionNames) }

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (v ProtocolVersion) Format(f fmt.State, verb rune) {
	stringer.Format(f, verb, v.String(), uint16(v))
}

// WireFormat is the kind of object in an MLSMessage (RFC 9420, Section 17.2); uint16 on the
// wire.
type WireFormat uint16

// The wire formats of RFC 9420.
const (
	WireFormatPublicMessage  WireFormat = 1
	WireFormatPrivateMessage WireFormat = 2
	WireFormatWelcome        WireFormat = 3
	WireFormatGroupInfo      WireFormat = 4
	WireFormatKeyPackage     WireFormat = 5
)

var wireFormatNames = map[WireFormat]string{
	WireFormatPublicMessage:  "mls_public_message",
	WireFormatPrivateMessage: "mls_private_message",
	WireFormatWelcome:        "mls_welcome",
	WireFormatGroupInfo:      "mls_group_info",
	WireFormatKeyPackage:     "mls_key_package",
}

// String returns the name in the RFC, or the number in hexadecimal.
func (f WireFormat) String() string { return nameOf(f, wireFormatNames) }

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (f WireFormat) Format(s fmt.State, verb rune) { stringer.Format(s, verb, f.String(), uint16(f)) }

// ExtensionType is the type of an extension (RFC 9420, Section 17.3); uint16 on the wire.
type ExtensionType uint16

// The extension types of RFC 9420, and last_resort of draft-ietf-mls-extensions as
// implementations use it.
const (
	ExtensionApplicationID        ExtensionType = 0x0001
	ExtensionRatchetTree          ExtensionType = 0x0002
	ExtensionRequiredCapabilities ExtensionType = 0x0003
	ExtensionExternalPub          ExtensionType = 0x0004
	ExtensionExternalSenders      ExtensionType = 0x0005
	ExtensionLastResort           ExtensionType = 0x000A
)

var extensionNames = map[ExtensionType]string{
	ExtensionApplicationID:        "application_id",
	ExtensionRatchetTree:          "ratchet_tree",
	ExtensionRequiredCapabilities: "required_capabilities",
	ExtensionExternalPub:          "external_pub",
	ExtensionExternalSenders:      "external_senders",
	ExtensionLastResort:           "last_resort",
}

// String returns the name in the RFC, or the number in hexadecimal.
func (t ExtensionType) String() string { return nameOf(t, extensionNames) }

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (t ExtensionType) Format(f fmt.State, verb rune) {
	stringer.Format(f, verb, t.String(), uint16(t))
}

// Default reports whether every client supports t, so that capabilities must
// not list it (RFC 9420, Section 7.2).
func (t ExtensionType) Default() bool {
	return ExtensionApplicationID <= t && t <= ExtensionExternalSenders
}

// ProposalType is the type of a proposal (RFC 9420, Section 17.4); uint16 on the wire.
type ProposalType uint16

// The proposal types of RFC 9420.
const (
	ProposalAdd                    ProposalType = 1
	ProposalUpdate                 ProposalType = 2
	ProposalRemove                 ProposalType = 3
	ProposalPSK                    ProposalType = 4
	ProposalReInit                 ProposalType = 5
	ProposalExternalInit           ProposalType = 6
	ProposalGroupContextExtensions ProposalType = 7
)

var proposalNames = map[ProposalType]string{
	ProposalAdd:                    "add",
	ProposalUpdate:                 "update",
	ProposalRemove:                 "remove",
	ProposalPSK:                    "psk",
	ProposalReInit:                 "reinit",
	ProposalExternalInit:           "external_init",
	ProposalGroupContextExtensions: "group_context_extensions",
}

// String returns the name in the RFC, or the number in hexadecimal.
func (t ProposalType) String() string { return nameOf(t, proposalNames) }

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (t ProposalType) Format(f fmt.State, verb rune) { stringer.Format(f, verb, t.String(), uint16(t)) }

// Default reports whether every client supports t, so that capabilities must
// not list it (RFC 9420, Section 7.2).
func (t ProposalType) Default() bool {
	return ProposalAdd <= t && t <= ProposalGroupContextExtensions
}

// CredentialType is the type of a credential (RFC 9420, Section 17.5); uint16 on the wire.
type CredentialType uint16

// The credential types of RFC 9420.
const (
	CredentialBasic CredentialType = 1
	CredentialX509  CredentialType = 2
)

var credentialNames = map[CredentialType]string{
	CredentialBasic: "basic",
	CredentialX509:  "x509",
}

// String returns the name in the RFC, or the number in hexadecimal.
func (t CredentialType) String() string { return nameOf(t, credentialNames) }

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (t CredentialType) Format(f fmt.State, verb rune) {
	stringer.Format(f, verb, t.String(), uint16(t))
}

// LeafNodeSource tells how a leaf node got into a tree (RFC 9420, Section 7.2); uint8 on the
// wire.
type LeafNodeSource uint8

// The sources of RFC 9420.
const (
	SourceKeyPackage LeafNodeSource = 1
	SourceUpdate     LeafNodeSource = 2
	SourceCommit     LeafNodeSource = 3
)

// String returns the name in the RFC, or the number in hexadecimal.
func (s LeafNodeSource) String() string {
	switch s {
	case SourceKeyPackage:
		return "key_package"
	case SourceUpdate:
		return "update"
	case SourceCommit:
		return "commit"
	}
	return fmt.Sprintf("0x%02X", uint8(s))
}

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (s LeafNodeSource) Format(f fmt.State, verb rune) {
	stringer.Format(f, verb, s.String(), uint8(s))
}

// nameOf returns the name of a code point, or its number with a mark if the number is
// reserved for GREASE.
func nameOf[T ~uint16](v T, names map[T]string) string {
	if name, ok := names[v]; ok {
		return name
	}
	if grease(v) {
		return fmt.Sprintf("GREASE 0x%04X", uint16(v))
	}
	return fmt.Sprintf("0x%04X", uint16(v))
}

// GREASE returns one of the fifteen values that are reserved to have no meaning (RFC 9420,
// Section 13.5), chosen by a random byte.
func GREASE(random byte) uint16 { return 0x0A0A + uint16(random%15)*0x1010 }

// IsGREASE reports whether v is one of the values that GREASE returns. Decoding and Validate
// treat them as any other unknown value.
func IsGREASE(v uint16) bool { return v&0x0F0F == 0x0A0A && v>>12 == v>>4&0xF && v < 0xF000 }

func grease[T ~uint16](v T) bool { return IsGREASE(uint16(v)) }
