package keypackage

import (
	"encoding/hex"
	"encoding/json"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// The JSON forms have the field names of RFC 9420. Octets are hexadecimal. A code point is an
// object with its value, and its name if it has one. Nothing is parsed from JSON.

type jsonCode struct {
	Value uint16 `json:"value"`
	Name  string `json:"name,omitempty"`
}

type jsonOctets []byte

func (o jsonOctets) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, o), nil }

type jsonKeyPackage struct {
	Version     jsonCode    `json:"version"`
	CipherSuite jsonCode    `json:"cipher_suite"`
	InitKey     jsonOctets  `json:"init_key"`
	LeafNode    *LeafNode   `json:"leaf_node"`
	Extensions  []Extension `json:"extensions"`
	Signature   jsonOctets  `json:"signature"`
}

// MarshalJSON encodes the key package with the field names of the RFC.
func (kp *KeyPackage) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonKeyPackage{
		Version:     codeOf(kp.Version, versionNames),
		CipherSuite: codeOfSuite(kp.CipherSuite),
		InitKey:     kp.InitKey,
		LeafNode:    &kp.LeafNode,
		Extensions:  present(kp.Extensions),
		Signature:   kp.Signature,
	})
}

type jsonLeafNode struct {
	EncryptionKey jsonOctets   `json:"encryption_key"`
	SignatureKey  jsonOctets   `json:"signature_key"`
	Credential    Credential   `json:"credential"`
	Capabilities  Capabilities `json:"capabilities"`
	Source        jsonCode     `json:"leaf_node_source"`
	Lifetime      *Lifetime    `json:"lifetime,omitempty"`
	ParentHash    *jsonOctets  `json:"parent_hash,omitempty"`
	Extensions    []Extension  `json:"extensions"`
	Signature     jsonOctets   `json:"signature"`
}

// MarshalJSON encodes the leaf node with the field names of the RFC and the fields that its
// source has.
func (l *LeafNode) MarshalJSON() ([]byte, error) {
	out := jsonLeafNode{
		EncryptionKey: l.EncryptionKey,
		SignatureKey:  l.SignatureKey,
		Credential:    l.Credential,
		Capabilities:  l.Capabilities,
		Source:        jsonCode{uint16(l.Source), l.Source.String()},
		Extensions:    present(l.Extensions),
		Signature:     l.Signature,
	}
	switch l.Source {
	case SourceKeyPackage:
		out.Lifetime = &l.Lifetime
	case SourceCommit:
		out.ParentHash = (*jsonOctets)(&l.ParentHash)
	}
	return json.Marshal(out)
}

type jsonCredential struct {
	Type         jsonCode      `json:"credential_type"`
	Identity     *jsonOctets   `json:"identity,omitempty"`
	IdentityText string        `json:"identity_text,omitempty"`
	Certificates *[]jsonOctets `json:"certificates,omitempty"`
	Raw          *jsonOctets   `json:"content,omitempty"`
}

// MarshalJSON encodes the credential with the field names of the RFC. If the identity is
// printable text, the text is in identity_text too. The content of a credential of unknown
// type is called content.
func (c Credential) MarshalJSON() ([]byte, error) {
	out := jsonCredential{Type: codeOf(c.Type, credentialNames)}
	switch c.Type {
	case CredentialBasic:
		out.Identity = (*jsonOctets)(&c.Identity)
		out.IdentityText = printable(c.Identity)
	case CredentialX509:
		certificates := make([]jsonOctets, len(c.Certificates))
		for i, der := range c.Certificates {
			certificates[i] = der
		}
		out.Certificates = &certificates
	default:
		out.Raw = (*jsonOctets)(&c.Raw)
	}
	return json.Marshal(out)
}

type jsonCapabilities struct {
	Versions     []jsonCode `json:"versions"`
	CipherSuites []jsonCode `json:"cipher_suites"`
	Extensions   []jsonCode `json:"extensions"`
	Proposals    []jsonCode `json:"proposals"`
	Credentials  []jsonCode `json:"credentials"`
}

// MarshalJSON encodes the capabilities with the field names of the RFC.
func (c Capabilities) MarshalJSON() ([]byte, error) {
	suites := make([]jsonCode, len(c.CipherSuites))
	for i, id := range c.CipherSuites {
		suites[i] = codeOfSuite(id)
	}
	return json.Marshal(jsonCapabilities{
		Versions:     codesOf(c.Versions, versionNames),
		CipherSuites: suites,
		Extensions:   codesOf(c.Extensions, extensionNames),
		Proposals:    codesOf(c.Proposals, proposalNames),
		Credentials:  codesOf(c.Credentials, credentialNames),
	})
}

type jsonLifetime struct {
	NotBefore     uint64 `json:"not_before"`
	NotBeforeTime string `json:"not_before_time,omitempty"`
	NotAfter      uint64 `json:"not_after"`
	NotAfterTime  string `json:"not_after_time,omitempty"`
}

// MarshalJSON encodes both ends in seconds, as in the RFC, and up to the year 9999 as a date
// too (RFC 3339).
func (l Lifetime) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonLifetime{l.NotBefore, dateOf(l.NotBefore), l.NotAfter, dateOf(l.NotAfter)})
}

type jsonExtension struct {
	Type jsonCode   `json:"extension_type"`
	Data jsonOctets `json:"extension_data"`
}

// MarshalJSON encodes the extension with the field names of the RFC.
func (e Extension) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonExtension{codeOf(e.Type, extensionNames), e.Data})
}

func codeOf[T ~uint16](v T, names map[T]string) jsonCode {
	name := names[v]
	if name == "" && grease(v) {
		name = "GREASE"
	}
	return jsonCode{uint16(v), name}
}

func codesOf[T ~uint16](list []T, names map[T]string) []jsonCode {
	codes := make([]jsonCode, len(list))
	for i, v := range list {
		codes[i] = codeOf(v, names)
	}
	return codes
}

// codeOfSuite gets the name from the table of suites.
func codeOfSuite(id ciphersuite.ID) jsonCode {
	if s, ok := ciphersuite.Lookup(id); ok {
		return jsonCode{uint16(id), s.Name}
	}
	return codeOf[ciphersuite.ID](id, nil)
}

// present returns an empty list for nil, which JSON would encode as null.
func present[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// printable returns b as text, or "" if it is not printable UTF-8.
func printable(b []byte) string {
	if !utf8.Valid(b) {
		return ""
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) {
			return ""
		}
	}
	return string(b)
}

// dateOf returns Unix seconds in RFC 3339, or "" if the year has more than four digits.
func dateOf(seconds uint64) string {
	const endOf9999 = 253402300799
	if seconds > endOf9999 {
		return ""
	}
	return time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339)
}
