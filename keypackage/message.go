package keypackage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrVersion reports an MLSMessage of a protocol version other than mls10,
// whose form cannot be known.
var ErrVersion = errors.New("unknown protocol version")

// MLSMessage is the frame in which MLS objects travel (RFC 9420, Section 6):
// uint16 version, uint16 wire_format, then the object.
type MLSMessage struct {
	Version    ProtocolVersion
	WireFormat WireFormat
	// KeyPackage is what the message holds where WireFormat is
	// WireFormatKeyPackage, else nil.
	KeyPackage *KeyPackage
	// Body is what follows wire_format, in every wire format.
	Body []byte
}

// ParseMessage decodes an MLSMessage of any wire format; a KeyPackage in it is
// decoded too, any other object is kept as it stands. Its errors and the
// ownership of its slices are those of Parse, and ErrVersion.
//
// RFC 9420, Section 10, wants the versions of message and key package to be
// equal. The message's is mls10 here; that the key package's is as well is for
// Validate to say.
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
