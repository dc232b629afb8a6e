package interop

import (
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// cell is a place in the tables: what one peer did alone, or two together.
type cell struct {
	suite           uint16
	founder, joiner string
}

// results is what a run found.
type results struct {
	peers        []*peer
	failed       map[cell][]*fault
	passed       map[cell]bool
	own          map[cell][]keypackage.Finding
	variantNames []string
	findings     map[string]string
	refused      map[[2]string]error
	seen         map[*fault]bool
}

func newResults() *results {
	return &results{
		failed: make(map[cell][]*fault), passed: make(map[cell]bool), own: make(map[cell][]keypackage.Finding),
		findings: make(map[string]string), refused: make(map[[2]string]error), seen: make(map[*fault]bool),
	}
}

// note records how something ended. An error that is a known fault of a peer is
// shown in the table; any other fails the test.
func (r *results) note(t *testing.T, c cell, err error) {
	t.Helper()
	if err == nil {
		r.passed[c] = true
		return
	}
	for _, f := range faults {
		if f.fits(c, err) {
			r.failed[c] = append(r.failed[c], f)
			r.seen[f] = true
			t.Logf("known fault of %s: %v", f.peer, err)
			return
		}
	}
	t.Error(err)
}

// allFaultsWereSeen finds faults that a new version of a peer has no more.
func (r *results) allFaultsWereSeen(t *testing.T) {
	running := make(map[string]bool)
	for _, p := range r.peers {
		running[p.hello.Name] = true
	}
	for _, f := range faults {
		if running[f.peer] && !r.seen[f] {
			t.Errorf("the fault of %s was not seen: %s", f.peer, f.note)
		}
	}
}

// verdict says in a word what our validator makes of a key package.
func verdict(findings []keypackage.Finding, err error) string {
	if err != nil {
		return "not decoded"
	}
	var ids []string
	for _, f := range findings {
		id := f.ID
		if f.Severity == keypackage.Warning {
			id = "(" + id + ")"
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return "ok"
	}
	return strings.Join(ids, ", ")
}

// fault is something that a peer gets wrong.
type fault struct {
	peer   string
	suites []uint16
	// says is part of the error that shows it.
	says string
	// note goes into the table's legend.
	note string
}

func (f *fault) fits(c cell, err error) bool {
	if c.founder != f.peer && c.joiner != f.peer {
		return false
	}
	for _, s := range f.suites {
		if s == c.suite {
			return strings.Contains(err.Error(), f.says)
		}
	}
	return false
}

// faults are those that are known, each with what was seen.
var faults = []*fault{
	{"ts-mls", []uint16{2, 5, 7}, "leaf_node.signature_key is not a public key of the cipher suite",
		"makes ECDSA keys as compressed points. RFC 9420, Section 5.1.1, requires uncompressed ones."},
	{"ts-mls", []uint16{2, 5}, "invalid leaf node at index 0 in ratchet tree",
		"makes ECDSA keys as compressed points, and so a member that checks them does not join its groups."},
	{"ts-mls", []uint16{2, 5, 7}, "verify GroupInfo: parse ecdsa_",
		"makes ECDSA keys as compressed points, and so hsm-kp does not accept the signature of its GroupInfo."},
	{"mls-go", []uint16{5}, "decryption failed: sender_data",
		"cannot read messages in a group of suite 5 that it made itself, and nobody can read its own."},
}

// remark explains verdicts on variants.
type remark struct {
	peers, variants []string
	text            string
}

// remarks are those that a reader of the table would ask about.
var remarks = []remark{
	{[]string{"all"}, []string{"encryption_key is no point", "encryption_key compressed"},
		"nothing is encrypted to this key when a client is added; the first commit with a path to it fails for everybody."},
	{[]string{"mls-go"}, []string{"bad leaf signature"},
		"RFC 9420, Section 7.3, requires that it is verified."},
	{[]string{"mls-rs"}, []string{"application_id, not listed", "application_id, listed"},
		"application_id is a default type, which Section 7.2 forbids to list: with both refused, no leaf node can have it."},
	{[]string{"mls-go", "bcmls"}, []string{"application_id, not listed"},
		"they require a default type to be listed, which Section 7.2 forbids."},
	{[]string{"openmls"}, []string{"GREASE leaf extension, listed", "GREASE extension, listed"},
		"Section 13.5 says to handle GREASE as any unknown value; it decodes the capability as GREASE and the extension as unknown, and considers the two different."},
	{[]string{"bcmls"}, []string{"last_resort, listed", "private extension, listed", "private leaf extension, listed"},
		"it decodes extension types into a list of names and has none for these: 0x000A becomes another type, over which the signature does not verify, and higher ones end in an exception."},
	{[]string{"core-crypto"}, []string{"last_resort, listed"},
		"it reads the type 0x000A as an extension of its own."},
	{[]string{"core-crypto"}, []string{"basic alone listed"},
		"its groups require both credentials."},
	{[]string{"core-crypto"}, []string{"x509"},
		"its application sets the trust anchors, and this one has set none."},
	{[]string{"mls-go"}, []string{"x509"},
		"its clients list basic alone, and Section 7.3 requires all members to support the credential."},
	{[]string{"mls-go", "bcmls"}, []string{"a byte after the end"},
		"Section 2.1 allows no bytes that nothing describes."},
	{[]string{"ts-mls", "mls-go"}, []string{"extension twice", "leaf extension twice"},
		"Section 13.4 forbids it."},
}
