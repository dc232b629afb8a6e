package keypackage

import (
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Capabilities lists what a client supports (RFC 9420, Section 7.2): all protocol versions,
// cipher suites and credential types, and the extension and proposal types that are not
// default. Unknown values are kept and have no meaning.
type Capabilities struct {
	Versions     []ProtocolVersion
	CipherSuites []ciphersuite.ID
	Extensions   []ExtensionType
	Proposals    []ProposalType
	Credentials  []CredentialType
}

// DefaultCapabilities returns the smallest capabilities for suite s: mls10, s itself, and
// both credential types, because some peers add only members that list both. The caller may
// append to the lists.
func DefaultCapabilities(s *ciphersuite.Suite) Capabilities {
	return Capabilities{
		Versions:     []ProtocolVersion{MLS10},
		CipherSuites: []ciphersuite.ID{s.ID},
		Credentials:  []CredentialType{CredentialBasic, CredentialX509},
	}
}

func (c *Capabilities) read(r *wire.Reader) {
	c.Versions = readList[ProtocolVersion](r)
	c.CipherSuites = readList[ciphersuite.ID](r)
	c.Extensions = readList[ExtensionType](r)
	c.Proposals = readList[ProposalType](r)
	c.Credentials = readList[CredentialType](r)
}

func (c *Capabilities) append(b []byte) []byte {
	b = appendList(b, c.Versions)
	b = appendList(b, c.CipherSuites)
	b = appendList(b, c.Extensions)
	b = appendList(b, c.Proposals)
	return appendList(b, c.Credentials)
}

func (c *Capabilities) size() int {
	return sizeList(len(c.Versions)) + sizeList(len(c.CipherSuites)) + sizeList(len(c.Extensions)) +
		sizeList(len(c.Proposals)) + sizeList(len(c.Credentials))
}

func (c *Capabilities) clone() Capabilities {
	return Capabilities{
		Versions:     slices.Clone(c.Versions),
		CipherSuites: slices.Clone(c.CipherSuites),
		Extensions:   slices.Clone(c.Extensions),
		Proposals:    slices.Clone(c.Proposals),
		Credentials:  slices.Clone(c.Credentials),
	}
}

// supports reports whether a member with these capabilities may use extensions of type t,
// which is default or listed.
func (c *Capabilities) supports(t ExtensionType) bool {
	return t.Default() || slices.Contains(c.Extensions, t)
}

// RequiredCapabilities lists what a group requires of its members (RFC 9420, Section 11.1).
// Default types may be left out: every client supports them.
type RequiredCapabilities struct {
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}

// Missing returns the names of what r lists and c does not, such as "extension 0xF001". It
// returns nil if nothing is missing.
func (c Capabilities) Missing(r RequiredCapabilities) []string {
	var missing []string
	for _, t := range r.Extensions {
		if !c.supports(t) {
			missing = append(missing, fmt.Sprintf("extension %v", t))
		}
	}
	for _, t := range r.Proposals {
		if !t.Default() && !slices.Contains(c.Proposals, t) {
			missing = append(missing, fmt.Sprintf("proposal %v", t))
		}
	}
	for _, t := range r.Credentials {
		if !slices.Contains(c.Credentials, t) {
			missing = append(missing, fmt.Sprintf("credential %v", t))
		}
	}
	return missing
}
