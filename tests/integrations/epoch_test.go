package integrations

import (
	"crypto/hmac"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// epoch is what the two members of a group share in an epoch (RFC 9420, Section 8).
type epoch struct {
	suite                                                            *ciphersuite.Suite
	context                                                          keypackage.GroupContext
	interim                                                          []byte // the interim transcript hash
	senderData, encryption, init, confirm, membership, authenticator []byte
	ratchets                                                         map[uint32]*ratchet // of application messages, by leaf
}

// newEpoch derives an epoch from the intermediate secret, Extract(joiner_secret, psk_secret), and
// checks its confirmation tag.
func newEpoch(suite *ciphersuite.Suite, joiner []byte, context keypackage.GroupContext, tag []byte) (*epoch, error) {
	intermediate, err := suite.Extract(joiner, make([]byte, suite.Nh)) // no pre-shared keys
	if err != nil {
		return nil, err
	}
	secret, err := suite.ExpandWithLabel(intermediate, "epoch", context.Bytes(), suite.Nh)
	if err != nil {
		return nil, err
	}
	e := &epoch{suite: suite, context: context, ratchets: make(map[uint32]*ratchet)}
	for label, to := range map[string]*[]byte{
		"sender data": &e.senderData, "encryption": &e.encryption, "init": &e.init,
		"confirm": &e.confirm, "membership": &e.membership, "authentication": &e.authenticator,
	} {
		if *to, err = suite.DeriveSecret(secret, label); err != nil {
			return nil, err
		}
	}
	if tag == nil { // the commit is being made
		tag = e.tag()
	}
	if !hmac.Equal(tag, e.tag()) {
		return nil, fmt.Errorf("epoch %d: the confirmation tag is another", context.Epoch)
	}
	e.interim = e.hash(context.ConfirmedTranscriptHash, vector(tag))
	return e, nil
}

// next derives the epoch after a commit (Section 8).
func (e *epoch) next(commitSecret []byte, context keypackage.GroupContext, tag []byte) (*epoch, error) {
	intermediate, err := e.suite.Extract(e.init, commitSecret)
	if err != nil {
		return nil, err
	}
	joiner, err := e.suite.ExpandWithLabel(intermediate, "joiner", context.Bytes(), e.suite.Nh)
	if err != nil {
		return nil, err
	}
	return newEpoch(e.suite, joiner, context, tag)
}

func (e *epoch) tag() []byte { return e.mac(e.confirm, e.context.ConfirmedTranscriptHash) }

func (e *epoch) mac(key, data []byte) []byte {
	m := hmac.New(e.suite.Hash.New, key)
	m.Write(data)
	return m.Sum(nil)
}

func (e *epoch) hash(parts ...[]byte) []byte {
	h := e.suite.Hash.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// ratchet makes the keys of a leaf's application messages (Section 9.1).
type ratchet struct {
	suite      *ciphersuite.Suite
	secret     []byte
	generation uint32
}

// ratchet returns the ratchet of a leaf in a tree of two: a root with the encryption secret, and
// two leaves.
func (e *epoch) ratchet(leaf uint32) (*ratchet, error) {
	if r := e.ratchets[leaf]; r != nil {
		return r, nil
	}
	side := map[uint32]string{0: "left", 1: "right"}[leaf]
	if side == "" {
		return nil, fmt.Errorf("leaf %d in a group of two", leaf)
	}
	secret, err := e.suite.ExpandWithLabel(e.encryption, "tree", []byte(side), e.suite.Nh)
	if err != nil {
		return nil, err
	}
	if secret, err = e.suite.ExpandWithLabel(secret, "application", nil, e.suite.Nh); err != nil {
		return nil, err
	}
	e.ratchets[leaf] = &ratchet{suite: e.suite, secret: secret}
	return e.ratchets[leaf], nil
}

// step returns the key and the nonce of the current generation, and advances.
func (r *ratchet) step() (key, nonce []byte, err error) {
	derive := func(label string, length int) (b []byte) {
		if err == nil {
			b, err = r.suite.DeriveTreeSecret(r.secret, label, r.generation, length)
		}
		return b
	}
	key, nonce = derive("key", r.suite.Nk), derive("nonce", r.suite.Nn)
	r.secret = derive("secret", r.suite.Nh)
	r.generation++
	return key, nonce, err
}
