// Package profile knows which key packages each MLS implementation refuses to add to a group, so
// that an operator learns it before publishing.
//
// A profile is a list of rules: findings of keypackage.Validate that the implementation acts on,
// and rules of its own. It was observed with the version that it names. tests/interop presents
// variants of a key package to each implementation whose profile is Tried: it must add what the
// profile accepts and refuse what the profile refuses. If a variant breaks two rules, this does not
// show which one counted.
package profile

import (
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Basis says how a profile was established.
type Basis string

const (
	// Tried: tests/interop presents its cases to the implementation.
	Tried Basis = "tried"
	// Seen: the implementation was run by hand and is not part of tests/interop.
	Seen Basis = "seen"
	// Read: the implementation's source says so.
	Read Basis = "read"
)

// Profile describes what one implementation refuses. It is immutable.
type Profile struct {
	// Name is the value of --for, such as "openmls".
	Name string
	// Version is the version that was examined.
	Version string
	Basis   Basis

	suites []ciphersuite.ID
	// findings are the ids of the findings for which it refuses.
	findings []string
	rules    []rule
}

// Refusal is a reason for which an implementation refuses a key package.
type Refusal struct {
	Peer    string `json:"peer"`
	Version string `json:"version"`
	// ID is the id of a finding, or of a rule that only implementations have.
	ID string `json:"id"`
	// Message is a clause that describes what is refused.
	Message string `json:"message"`
	// Value is the refused value, if it is short.
	Value string `json:"value,omitempty"`
	Basis Basis  `json:"basis"`
}

// All returns the profiles in a fixed order.
func All() []*Profile { return slices.Clone(profiles) }

// Lookup returns the profile called name.
func Lookup(name string) (*Profile, bool) {
	i := slices.IndexFunc(profiles, func(p *Profile) bool { return p.Name == name })
	if i < 0 {
		return nil, false
	}
	return profiles[i], true
}

// Names returns the names of all profiles.
func Names() []string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.Name)
	}
	return names
}

// Refusals returns why the implementation would refuse to add the key package to a group of its
// cipher suite, or nothing if it would add it. findings are those of keypackage.Validate, at any
// level, for the same key package.
func (p *Profile) Refusals(kp *keypackage.KeyPackage, findings []keypackage.Finding) []Refusal {
	return p.refusals(kp, findings, true)
}

// RefusalsUnsigned is like Refusals for a key package without keys and signatures, with the
// findings of keypackage.ValidateUnsigned.
func (p *Profile) RefusalsUnsigned(kp *keypackage.KeyPackage, findings []keypackage.Finding) []Refusal {
	return p.refusals(kp, findings, false)
}

func (p *Profile) refusals(kp *keypackage.KeyPackage, findings []keypackage.Finding, signed bool) []Refusal {
	var refusals []Refusal
	add := func(id, message, value string) {
		refusals = append(refusals, Refusal{p.Name, p.Version, id, message, value, p.Basis})
	}
	// What the number of an experimental suite means to the implementation is unknown.
	if s, ok := ciphersuite.Lookup(kp.CipherSuite); ok && !s.Experimental && !slices.Contains(p.suites, s.ID) {
		add("suite-not-served", "it does not have the cipher suite", kp.CipherSuite.String())
	}
	for _, f := range findings {
		if slices.Contains(p.findings, f.ID) {
			add(f.ID, f.Message, f.Value)
		}
	}
	for _, r := range p.rules {
		if r.ofKeys && !signed {
			continue
		}
		if value, broken := r.broken(kp); broken {
			add(r.id, r.message, value)
		}
	}
	return refusals
}
