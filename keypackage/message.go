package keypackage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrVersion reports an MLSMessage of a protocol version other than mls10, whose form is
// unknown.
var ErrVersion = errors.New("unknown protocol version")

// MLSMessage is the frame of MLS objects (RFC 9420, Section 6): uint16 version, uint16
// wire_format, then the object.
type MLSMessage struct {
	Version    ProtocolVersion
	WireFormat WireFormat
	// KeyPackage is the content if WireFormat is WireFormatKeyPackage, else nil.
	KeyPackage *KeyPackage
	// Body is the encoded content, in every wire format.
	Body []byte
}

// ParseMessage decodes an MLSMessage of any wire format, and the KeyPackage if it has one. It
// returns errors and owns slices as Parse does; the error may also wrap ErrVersion.
//
// RFC 9420, Section 10, requires the versions of message and key package to be equal. The
// message's is mls10; Validate checks the key package's.
func ParseMessage(b []byte) (*MLSMessage, error) {
	r := wire.NewReader(slices.Clone(b))
	m := &MLSMessage{Version: ProtocolVersion(r.Uint16()), WireFormat: WireFormat(r.Uint16())}
	if r.Err() == nil && m.Version != MLS10 {
		r.Fail(fmt.Errorf("%w %v", ErrVersion, m.Version))
	}
	m.Body = r.Bytes(r.Len())
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse MLSMessage: %w", err)
	}
	if m.WireFormat == WireFormatKeyPackage {
		m.KeyPackage = new(KeyPackage)
		body := wire.NewReader(m.Body)
		m.KeyPackage.read(body)
		if err := body.Finish(); err != nil {
			return nil, fmt.Errorf("parse MLSMessage: parse key package: %w", err)
		}
	}
	return m, nil
}
