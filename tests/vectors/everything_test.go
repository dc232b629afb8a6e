package vectors

import (
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// walker searches MLS objects for key packages, leaf nodes and Welcomes, and passes each to decoder
// and validator. It parses what is around them by the structures of RFC 9420, Sections 6, 7.6, 7.8
// and 12, as far as that needs.
type walker struct {
	t                             *testing.T
	suite                         *ciphersuite.Suite
	keyPackages, leaves, welcomes int
	// verified counts the leaf nodes whose signature could be checked.
	verified int
}

// message walks an MLSMessage. It skips encrypted ones.
func (w *walker) message(b []byte) {
	w.t.Helper()
	m, err := keypackage.ParseMessage(b)
	if err != nil {
		w.t.Fatalf("ParseMessage(%.40x) err = %v, want nil", b, err)
	}
	switch m.WireFormat {
	case keypackage.WireFormatKeyPackage:
		wantEqual(w.t, "KeyPackage.Message()", m.KeyPackage.Message(), b)
		w.keyPackage(m.KeyPackage)
	case keypackage.WireFormatWelcome:
		w.welcome(m.Body)
	case keypackage.WireFormatPublicMessage:
		r := wire.NewReader(m.Body)
		w.framedContent(r)
		// FramedContentAuthData and membership_tag follow
	}
}

func (w *walker) welcome(b []byte) {
	w.t.Helper()
	welcome, err := keypackage.ParseWelcome(b)
	if err != nil {
		w.t.Fatalf("ParseWelcome() err = %v, want nil", err)
	}
	wantEqual(w.t, "Welcome.Bytes()", welcome.Bytes(), b)
	if welcome.CipherSuite != w.suite.ID || len(welcome.Secrets) == 0 {
		w.t.Errorf("Welcome = suite %v with %d secrets, want suite %v and some", welcome.CipherSuite, len(welcome.Secrets), w.suite.ID)
	}
	w.welcomes++
}

func (w *walker) keyPackage(kp *keypackage.KeyPackage) {
	w.t.Helper()
	again, err := keypackage.Parse(kp.Bytes())
	if err != nil {
		w.t.Fatalf("Parse() err = %v, want nil", err)
	}
	wantEqual(w.t, "KeyPackage.Bytes()", again.Bytes(), kp.Bytes())
	report := keypackage.Validate(kp, keypackage.Policy{Now: kp.LeafNode.Lifetime.NotBefore})
	for _, f := range report.Findings {
		if f.Severity == keypackage.Error {
			w.t.Errorf("suite %v: Validate() found %v", kp.CipherSuite, f)
		}
	}
	w.keyPackages++
	w.leaf(&kp.LeafNode, nil, 0)
}

// leaf checks a leaf node, and its signature if the source is key_package or the group is known.
func (w *walker) leaf(l *keypackage.LeafNode, groupID []byte, index uint32) {
	w.t.Helper()
	again, err := keypackage.ParseLeafNode(l.Bytes())
	if err != nil {
		w.t.Fatalf("ParseLeafNode() err = %v, want nil", err)
	}
	wantEqual(w.t, "LeafNode.Bytes()", again.Bytes(), l.Bytes())
	w.leaves++
	if l.Source != keypackage.SourceKeyPackage && groupID == nil {
		return
	}
	if err := l.Verify(w.suite, groupID, index); err != nil {
		w.t.Errorf("leaf node of source %v at %d: Verify() err = %v, want nil", l.Source, index, err)
	}
	if l.Source != keypackage.SourceKeyPackage && l.Verify(w.suite, groupID, index+1) == nil {
		w.t.Errorf("leaf node of source %v at %d: Verify() at another index err = nil, want one", l.Source, index)
	}
	w.verified++
}

// tree walks optional<Node> ratchet_tree<V>.
func (w *walker) tree(b, groupID []byte) {
	w.t.Helper()
	outer := wire.NewReader(b)
	nodes := wire.NewReader(outer.Vector())
	for index := uint32(0); nodes.Len() > 0 && nodes.Err() == nil; index++ {
		if leaf := nextNode(nodes); leaf != nil {
			w.leaf(leaf, groupID, index/2)
		}
	}
	w.finished("ratchet tree", nodes)
	w.finished("ratchet tree", outer)
}

// framedContent walks a FramedContent up to its body, and what a proposal or a commit carries
// there.
func (w *walker) framedContent(r *wire.Reader) {
	w.t.Helper()
	groupID := r.Vector()
	r.Uint64() // epoch
	sender := uint32(0)
	switch r.Uint8() {
	case 1, 2: // member, external
		sender = r.Uint32()
	}
	r.Vector() // authenticated_data
	switch r.Uint8() {
	case 1:
		r.Vector() // application_data
	case 2:
		w.proposal(r, groupID, sender)
	case 3:
		w.commit(r, groupID, sender)
	}
	if err := r.Err(); err != nil {
		w.t.Errorf("read FramedContent: %v", err)
	}
}

func (w *walker) proposal(r *wire.Reader, groupID []byte, sender uint32) {
	w.t.Helper()
	switch kind := keypackage.ProposalType(r.Uint16()); kind {
	case keypackage.ProposalAdd:
		kp := wire.Next(r, keypackage.ReadKeyPackage)
		if r.Err() == nil {
			w.keyPackage(kp)
		}
	case keypackage.ProposalUpdate:
		leaf := wire.Next(r, keypackage.ReadLeafNode)
		if r.Err() == nil {
			w.leaf(leaf, groupID, sender)
		}
	case keypackage.ProposalRemove:
		r.Uint32()
	case keypackage.ProposalPSK:
		if r.Uint8() == 2 { // resumption
			r.Uint8()
			r.Vector()
			r.Uint64()
		} else {
			r.Vector()
		}
		r.Vector() // psk_nonce
	case keypackage.ProposalReInit:
		r.Vector()
		r.Uint16()
		r.Uint16()
		r.Vector()
	case keypackage.ProposalExternalInit, keypackage.ProposalGroupContextExtensions:
		r.Vector()
	default:
		w.t.Errorf("a proposal of type %v", kind)
	}
}

func (w *walker) commit(r *wire.Reader, groupID []byte, sender uint32) {
	w.t.Helper()
	list := wire.NewReader(r.Vector())
	for list.Len() > 0 && list.Err() == nil {
		if list.Uint8() == 1 {
			w.proposal(list, groupID, sender)
		} else {
			list.Vector() // ProposalRef
		}
	}
	w.finished("proposals of a commit", list)
	if r.Uint8() == 1 {
		w.updatePath(r, groupID, sender)
	}
}

func (w *walker) updatePath(r *wire.Reader, groupID []byte, sender uint32) {
	w.t.Helper()
	leaf := wire.Next(r, keypackage.ReadLeafNode)
	r.Vector() // nodes
	if r.Err() == nil {
		w.leaf(leaf, groupID, sender)
	}
}

func (w *walker) finished(what string, r *wire.Reader) {
	w.t.Helper()
	if err := r.Finish(); err != nil {
		w.t.Errorf("read %s: %v", what, err)
	}
}

// walk runs f over each vector of a file.
func walk[T any](t *testing.T, w *walker, file string, suite func(*T) uint16, f func(*T)) {
	t.Helper()
	for _, v := range load[T](t, file) {
		s, ok := served(suite(&v))
		if !ok {
			t.Fatalf("%s has the unknown suite %d", file, suite(&v))
		}
		w.suite = s
		f(&v)
	}
}

type passiveClient struct {
	CipherSuite uint16 `json:"cipher_suite"`
	KeyPackage  octets `json:"key_package"`
	Welcome     octets
	RatchetTree octets `json:"ratchet_tree"`
	Epochs      []struct {
		Proposals []octets
		Commit    octets
	}
}

type treeValidation struct {
	CipherSuite uint16 `json:"cipher_suite"`
	Tree        octets
	GroupID     octets `json:"group_id"`
}

type treeOperation struct {
	CipherSuite uint16 `json:"cipher_suite"`
	Proposal    octets
	TreeBefore  octets `json:"tree_before"`
	TreeAfter   octets `json:"tree_after"`
}

type treeKEM struct {
	CipherSuite uint16 `json:"cipher_suite"`
	GroupID     octets `json:"group_id"`
	RatchetTree octets `json:"ratchet_tree"`
	UpdatePaths []struct {
		Sender     uint32
		UpdatePath octets `json:"update_path"`
	} `json:"update_paths"`
}

type messageProtection struct {
	CipherSuite uint16 `json:"cipher_suite"`
	Proposal    octets
	Commit      octets
	ProposalPub octets `json:"proposal_pub"`
	CommitPub   octets `json:"commit_pub"`
}

type transcriptHashes struct {
	CipherSuite          uint16 `json:"cipher_suite"`
	AuthenticatedContent octets `json:"authenticated_content"`
}

// Every key package, leaf node and Welcome in the vectors, wherever it is, is decoded, encodes to
// the same bytes, and is valid. The numbers are those of this edition of the vectors: smaller ones
// would mean that the walk missed some.
func TestEverything(t *testing.T) {
	w := &walker{t: t}
	for _, file := range []string{"welcome", "passive-client-welcome", "passive-client-handling-commit"} {
		walk(t, w, file, func(v *passiveClient) uint16 { return v.CipherSuite }, func(v *passiveClient) {
			w.message(v.KeyPackage)
			w.message(v.Welcome)
			if len(v.RatchetTree) > 0 { // null if the Welcome carries it
				w.tree(v.RatchetTree, nil)
			}
			for _, e := range v.Epochs {
				for _, p := range e.Proposals {
					w.message(p)
				}
				w.message(e.Commit)
			}
		})
	}
	walk(t, w, "tree-validation", func(v *treeValidation) uint16 { return v.CipherSuite }, func(v *treeValidation) {
		w.tree(v.Tree, v.GroupID)
	})
	walk(t, w, "tree-operations", func(v *treeOperation) uint16 { return v.CipherSuite }, func(v *treeOperation) {
		r := wire.NewReader(v.Proposal)
		w.proposal(r, nil, 0)
		w.finished("proposal", r)
		w.tree(v.TreeBefore, nil)
		w.tree(v.TreeAfter, nil)
	})
	walk(t, w, "treekem", func(v *treeKEM) uint16 { return v.CipherSuite }, func(v *treeKEM) {
		w.tree(v.RatchetTree, v.GroupID)
		for _, p := range v.UpdatePaths {
			r := wire.NewReader(p.UpdatePath)
			w.updatePath(r, v.GroupID, p.Sender)
			w.finished("update path", r)
		}
	})
	walk(t, w, "message-protection", func(v *messageProtection) uint16 { return v.CipherSuite }, func(v *messageProtection) {
		r := wire.NewReader(v.Proposal)
		w.proposal(r, nil, 0)
		w.finished("proposal", r)
		r = wire.NewReader(v.Commit)
		w.commit(r, nil, 0)
		w.finished("commit", r)
		w.message(v.ProposalPub)
		w.message(v.CommitPub)
	})
	walk(t, w, "transcript-hashes", func(v *transcriptHashes) uint16 { return v.CipherSuite }, func(v *transcriptHashes) {
		r := wire.NewReader(v.AuthenticatedContent)
		r.Uint16() // wire_format
		w.framedContent(r)
	})
	got := [4]int{w.keyPackages, w.leaves, w.verified, w.welcomes}
	if want := [4]int{184, 2862, 2764, 154}; got != want {
		t.Errorf("key packages, leaf nodes, verified leaf nodes, Welcomes = %v, want %v", got, want)
	}
}
