package client

import (
	"context"
	"strings"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Signer signs structures of MLS as an identity, whose private key is in the service's token. The
// service signs only what a member sends: see docs/API.md. A Signer is safe for concurrent use.
type Signer struct {
	client   *Client
	identity string
}

// Signer returns the signer of an identity. It calls nothing.
func (c *Client) Signer(identity string) *Signer { return &Signer{c, identity} }

// SignWithLabel returns a signature over label and content (RFC 9420, Section 5.1.2). label is
// FramedContentTBS, LeafNodeTBS, KeyPackageTBS or GroupInfoTBS, without "MLS 1.0 "; content is the
// encoded structure of that name. The signature is in DER for ECDSA, and as in RFC 8032 for EdDSA.
func (s *Signer) SignWithLabel(ctx context.Context, label string, content []byte) ([]byte, error) {
	out, err := repeated(ctx, s.client, "sign", s.client.api.SignWithLabel, &hsmkpv1.SignWithLabelRequest{
		Identity: s.identity, Label: label, Content: content,
	})
	return out.GetSignature(), err
}

// SignContent does what SignWithLabel does, for libraries that pass their signer an encoded
// SignContent: opaque label<V>, opaque content<V>. The error wraps ErrNotLabelled if signContent
// is something else.
func (s *Signer) SignContent(ctx context.Context, signContent []byte) ([]byte, error) {
	label, content, err := labelled(signContent)
	if err != nil {
		return nil, &Error{Operation: "sign", err: err}
	}
	return s.SignWithLabel(ctx, label, content)
}

// labelled decodes a SignContent or EncryptContext.
func labelled(b []byte) (label string, body []byte, err error) {
	r := wire.NewReader(b)
	whole, body := r.Vector(), r.Vector()
	label, ok := strings.CutPrefix(string(whole), "MLS 1.0 ")
	if r.Finish() != nil || !ok {
		return "", nil, ErrNotLabelled
	}
	return label, body, nil
}
