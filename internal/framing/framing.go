// Package framing is what members of a group sign of the messages that they send: the
// FramedContentTBS of RFC 9420, Section 6.1, with the proposals and commits in it. It
// decodes, strictly and to the end, so that whoever signs knows what it signs; it makes no
// messages.
//
// Decoding refuses what it cannot read to the end: proposals of types that RFC 9420 does
// not define have no form that is known.
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
	// ErrKind reports a wire format, a sender type, a content type or a proposal type that
	// RFC 9420 does not define, or does not allow there.
	ErrKind = errors.New("unknown kind of content")
)

// SenderType says who sends a message (RFC 9420, Section 6); uint8 on the wire.
type SenderType uint8

// The sender types of RFC 9420.
const (
	SenderMember            SenderType = 1
	SenderExternal          SenderType = 2
	SenderNewMemberProposal SenderType = 3
	SenderNewMemberCommit   SenderType = 4
)

// ContentType says what a message holds (RFC 9420, Section 6); uint8 on the wire.
type ContentType uint8

// The content types of RFC 9420.
const (
	ContentApplication ContentType = 1
	ContentProposal    ContentType = 2
	ContentCommit      ContentType = 3
)

// Sender is who sends a message: uint8 sender_type, and a uint32 for members and external
// senders.
type Sender struct {
	Type SenderType
	// Index is leaf_index of a member, sender_index of an external sender.
	Index uint32
}

// Content is a FramedContent (RFC 9420, Section 6): opaque group_id<V>, uint64 epoch, Sender
// sender, opaque authenticated_data<V>, uint8 content_type, and what the type says.
type Content struct {
	GroupID           []byte
	Epoch             uint64
	Sender            Sender
	AuthenticatedData []byte
	Type              ContentType
	// Application, Proposal or Commit is set, as Type says.
	Application []byte
	Proposal    *Proposal
	Commit      *Commit
}

// ContentTBS is a FramedContentTBS (RFC 9420, Section 6.1): uint16 version, uint16
// wire_format, FramedContent content, and for members and new members that commit the
// GroupContext.
type ContentTBS struct {
	Version    keypackage.ProtocolVersion
	WireFormat keypackage.WireFormat
	Content    Content
	// Context is nil for senders that are not in the group.
	Context *keypackage.GroupContext
}

// ParseContentTBS decodes a FramedContentTBS to its last byte. It takes one copy of b, which
// the slices of the result share. The error wraps one of wire's, ErrVersion, ErrKind, or one
// of keypackage's.
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
		c := keypackage.ReadGroupContext(r)
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
