package integrations

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/client"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// member is the second member of a group of two, whose private keys the service has. No available
// MLS library in Go lets others sign and decrypt, so this implements as much of RFC 9420 as the
// life of such a group needs.
type member struct {
	*epoch
	index  uint32
	leaves [2]*keypackage.LeafNode
	signer *client.Signer
	leaf   hpke.PrivateKey // in the service until the member has committed with a path
}

// join opens a Welcome with the init key in the service.
func join(ctx context.Context, c *client.Client, kp *hsmkpv1.KeyPackage, message []byte) (*member, client.Reservation, error) {
	fail := func(err error) (*member, client.Reservation, error) {
		return nil, client.Reservation{}, fmt.Errorf("join: %w", err)
	}
	w, err := keypackage.DecodeWelcome(message)
	if err != nil {
		return fail(err)
	}
	keys, err := c.Keys(ctx, kp)
	if err != nil {
		return fail(err)
	}
	m, err := keypackage.ParseMessage(kp.GetMlsMessage())
	if err != nil {
		return fail(err)
	}
	opened, err := welcome.Open(w, m.KeyPackage, keys.Init, welcome.Options{})
	if err != nil {
		return fail(err)
	}
	reservation, ok := keys.Init.Reservation()
	if !ok {
		return fail(errors.New("nothing is reserved"))
	}
	suite, _ := ciphersuite.Lookup(w.CipherSuite)
	info := opened.GroupInfo
	e, err := newEpoch(suite, opened.JoinerSecret, info.GroupContext, info.ConfirmationTag)
	if err != nil {
		return fail(err)
	}
	joined := &member{epoch: e, index: 1, signer: c.Signer(kp.GetIdentity()), leaf: keys.Leaf}
	tree, _ := info.RatchetTree()
	for i := range joined.leaves {
		if joined.leaves[i], err = keypackage.LeafAt(tree, uint32(i)); err != nil || joined.leaves[i] == nil {
			return fail(fmt.Errorf("leaf %d: %v, %w", i, joined.leaves[i], err))
		}
	}
	if !bytes.Equal(joined.leaves[1].EncryptionKey, keys.Leaf.PublicKey()) {
		return fail(errors.New("leaf 1 is another's"))
	}
	return joined, reservation, nil
}

// stored returns everything that the member has.
func (m *member) stored() []byte {
	b := slices.Concat(m.context.Bytes(), m.interim, m.senderData, m.encryption, m.init, m.confirm, m.membership, m.authenticator)
	for _, r := range m.ratchets {
		b = append(b, r.secret...)
	}
	return slices.Concat(b, m.leaves[0].Bytes(), m.leaves[1].Bytes(), m.leaf.PublicKey())
}

// Kinds of content and messages (Section 6).
const (
	publicMessage, privateMessage = 1, 2
	application, commit           = 1, 3
)

func vector(b []byte) []byte  { return wire.AppendVector(nil, b) }
func uint16s(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func uint32s(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func uint64s(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// framed encodes a FramedContent of a member (Section 6).
func (m *member) framed(sender uint32, authenticated []byte, kind byte, content []byte) []byte {
	return slices.Concat(vector(m.context.GroupID), uint64s(m.context.Epoch), []byte{1}, uint32s(sender), vector(authenticated), []byte{kind}, content)
}

// tbs encodes a FramedContentTBS (Section 6.1).
func (m *member) tbs(format uint16, framed []byte) []byte {
	return slices.Concat(uint16s(1), uint16s(format), framed, m.context.Bytes())
}

// send protects an application message (Section 6.3).
func (m *member) send(ctx context.Context, data []byte) ([]byte, error) {
	content := vector(data)
	signature, err := m.signer.SignWithLabel(ctx, "FramedContentTBS", m.tbs(privateMessage, m.framed(m.index, nil, application, content)))
	if err != nil {
		return nil, err
	}
	r, err := m.ratchet(m.index)
	if err != nil {
		return nil, err
	}
	generation := r.generation
	key, nonce, err := r.step()
	if err != nil {
		return nil, err
	}
	var guard [4]byte
	rand.Read(guard[:])
	ciphertext, err := m.seal(key, guarded(nonce, guard[:]), slices.Concat(content, vector(signature)), m.aad(application, vector(nil)))
	if err != nil {
		return nil, err
	}
	key, nonce, err = m.senderDataKey(ciphertext)
	if err != nil {
		return nil, err
	}
	sender, err := m.seal(key, nonce, slices.Concat(uint32s(m.index), uint32s(generation), guard[:]), m.aad(application, nil))
	return slices.Concat(uint16s(1), uint16s(privateMessage), m.aad(application, vector(nil)), vector(sender), vector(ciphertext)), err
}

// receive opens an application message of the other member.
func (m *member) receive(message []byte) ([]byte, error) {
	r := wire.NewReader(message)
	version, format := r.Uint16(), r.Uint16()
	group, at, kind, authenticated, sender, ciphertext := r.Vector(), r.Uint64(), r.Uint8(), r.Vector(), r.Vector(), r.Vector()
	if err := r.Finish(); err != nil {
		return nil, err
	}
	if version != 1 || format != privateMessage || !bytes.Equal(group, m.context.GroupID) || at != m.context.Epoch || kind != application {
		return nil, errors.New("not an application message of the epoch")
	}
	key, nonce, err := m.senderDataKey(ciphertext)
	if err != nil {
		return nil, err
	}
	data, err := m.open(key, nonce, sender, m.aad(application, nil))
	if err != nil || len(data) != 12 {
		return nil, fmt.Errorf("sender data of %d bytes, %w", len(data), err)
	}
	from, generation, guard := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), data[8:]
	ratchet, err := m.ratchet(from)
	if err != nil || generation != ratchet.generation {
		return nil, fmt.Errorf("generation %d of leaf %d, %w", generation, from, err)
	}
	if key, nonce, err = ratchet.step(); err != nil {
		return nil, err
	}
	plaintext, err := m.open(key, guarded(nonce, guard), ciphertext, m.aad(application, vector(authenticated)))
	if err != nil {
		return nil, err
	}
	r = wire.NewReader(plaintext)
	text, signature := r.Vector(), r.Vector()
	if padding := r.Bytes(r.Len()); r.Err() != nil || !bytes.Equal(padding, make([]byte, len(padding))) {
		return nil, fmt.Errorf("content with %d bytes of padding, %w", len(padding), r.Err())
	}
	framed := m.framed(from, authenticated, application, vector(text))
	return text, m.verify(from, m.tbs(privateMessage, framed), signature)
}

// verify checks a FramedContentTBS of a member.
func (m *member) verify(from uint32, tbs, signature []byte) error {
	key, err := m.suite.Signature.ParsePublicKey(m.leaves[from&1].SignatureKey)
	if err != nil {
		return err
	}
	return key.VerifyWithLabel("FramedContentTBS", tbs, signature)
}

// aad returns SenderDataAAD, or PrivateContentAAD with what follows in it (Section 6.3).
func (m *member) aad(kind byte, rest []byte) []byte {
	return slices.Concat(vector(m.context.GroupID), uint64s(m.context.Epoch), []byte{kind}, rest)
}

// senderDataKey returns the key and the nonce of a message's sender data (Section 6.3.2).
func (m *member) senderDataKey(ciphertext []byte) (key, nonce []byte, err error) {
	sample := ciphertext[:min(m.suite.Nh, len(ciphertext))]
	if key, err = m.suite.ExpandWithLabel(m.senderData, "key", sample, m.suite.Nk); err != nil {
		return nil, nil, err
	}
	nonce, err = m.suite.ExpandWithLabel(m.senderData, "nonce", sample, m.suite.Nn)
	return key, nonce, err
}

// guarded returns a nonce with a reuse_guard (Section 6.3.1).
func guarded(nonce, guard []byte) []byte {
	for i := range guard {
		nonce[i] ^= guard[i]
	}
	return nonce
}

func (m *member) seal(key, nonce, plaintext, aad []byte) ([]byte, error) {
	a, err := m.suite.NewAEAD(key)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nonce, plaintext, aad), nil
}

func (m *member) open(key, nonce, ciphertext, aad []byte) ([]byte, error) {
	a, err := m.suite.NewAEAD(key)
	if err != nil {
		return nil, err
	}
	return a.Open(nil, nonce, ciphertext, aad)
}
