// Package framing decodes what members of a group sign when they send messages: the
// FramedContentTBS of RFC 9420, Section 6.1, with its proposals and commits. It makes no messages.
//
// Decoding is strict and reaches the last byte, so that a signer knows what it signs. Proposals of
// types that RFC 9420 does not define are refused, as their form is unknown.
package framing

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Errors of decoding, beside those of wire.
var (
	// ErrVersion reports a protocol version other than mls10.
	ErrVersion = errors.New("unknown protocol version")
	// ErrKind reports a wire format, sender type, content type or proposal type that RFC 9420 does
	// not define or does not allow at that place.
	ErrKind = errors.New("unknown kind of content")
)

// SenderType is the kind of sender of a message (RFC 9420, Section 6); uint8 on the wire.
type SenderType uint8

// The sender types of RFC 9420.
const (
	SenderMember            SenderType = 1
	SenderExternal          SenderType = 2
	SenderNewMemberProposal SenderType = 3
	SenderNewMemberCommit   SenderType = 4
)

// ContentType is the kind of content of a message (RFC 9420, Section 6); uint8 on the wire.
type ContentType uint8

// The content types of RFC 9420.
const (
	ContentApplication ContentType = 1
	ContentProposal    ContentType = 2
	ContentCommit      ContentType = 3
)

// Sender is the sender of a message: uint8 sender_type, and a uint32 for members and external
// senders.
type Sender struct {
	Type SenderType
	// Index is a member's leaf_index or an external sender's sender_index.
	Index uint32
}

// Content is a FramedContent (RFC 9420, Section 6): opaque group_id<V>, uint64 epoch, Sender
// sender, opaque authenticated_data<V>, uint8 content_type, and the content of that type.
type Content struct {
	GroupID           []byte
	Epoch             uint64
	Sender            Sender
	AuthenticatedData []byte
	Type              ContentType
	// Application, Proposal or Commit is set, depending on Type.
	Application []byte
	Proposal    *Proposal
	Commit      *Commit
}

// ContentTBS is a FramedContentTBS (RFC 9420, Section 6.1): uint16 version, uint16 wire_format,
// FramedContent content, and the GroupContext for members and for new members that commit.
type ContentTBS struct {
	Version    keypackage.ProtocolVersion
	WireFormat keypackage.WireFormat
	Content    Content
	// Context is nil for senders that are not in the group.
	Context *keypackage.GroupContext
}

// ParseContentTBS decodes a FramedContentTBS to its last byte. It copies b once; the slices of the
// result share the copy. The error wraps one of wire's, ErrVersion, ErrKind, or one of
// keypackage's.
func ParseContentTBS(b []byte) (*ContentTBS, error) {
	t := new(ContentTBS)
	r := wire.NewReader(slices.Clone(b))
	t.read(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse FramedContentTBS: %w", err)
	}
	return t, nil
}

func (t *ContentTBS) read(r *wire.Reader) {
	t.Version = keypackage.ProtocolVersion(r.Uint16())
	t.WireFormat = keypackage.WireFormat(r.Uint16())
	if t.Version != keypackage.MLS10 {
		r.Fail(ErrVersion)
	}
	if t.WireFormat != keypackage.WireFormatPublicMessage && t.WireFormat != keypackage.WireFormatPrivateMessage {
		r.Fail(ErrKind)
	}
	t.Content.read(r)
	switch t.Content.Sender.Type {
	case SenderMember, SenderNewMemberCommit:
		c := wire.Next(r, keypackage.ReadGroupContext)
		t.Context = &c
	}
}

func (c *Content) read(r *wire.Reader) {
	c.GroupID = r.Vector()
	c.Epoch = r.Uint64()
	c.Sender.read(r)
	c.AuthenticatedData = r.Vector()
	c.Type = ContentType(r.Uint8())
	switch c.Type {
	case ContentApplication:
		c.Application = r.Vector()
	case ContentProposal:
		p := readProposal(r)
		c.Proposal = &p
	case ContentCommit:
		c.Commit = readCommit(r)
	default:
		r.Fail(ErrKind)
	}
}

func (s *Sender) read(r *wire.Reader) {
	s.Type = SenderType(r.Uint8())
	switch s.Type {
	case SenderMember, SenderExternal:
		s.Index = r.Uint32()
	case SenderNewMemberProposal, SenderNewMemberCommit:
	default:
		r.Fail(ErrKind)
	}
}
