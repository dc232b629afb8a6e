package welcome

import (
	"encoding/binary"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// PSKType is the origin of a pre-shared key (RFC 9420, Section 8.4); uint8 on the wire.
type PSKType uint8

// The types of RFC 9420.
const (
	PSKExternal   PSKType = 1
	PSKResumption PSKType = 2
)

// PSKID is PreSharedKeyID (RFC 9420, Section 8.4).
type PSKID struct {
	Type PSKType
	// ID names an external PSK.
	ID []byte
	// Usage, GroupID and Epoch name a resumption PSK.
	Usage   uint8
	GroupID []byte
	Epoch   uint64
	// Nonce is fresh for each use.
	Nonce []byte
}

// String returns a text that identifies the PSK, without its nonce.
func (p PSKID) String() string {
	if p.Type == PSKExternal {
		return fmt.Sprintf("external %x", p.ID)
	}
	return fmt.Sprintf("resumption of group %x at epoch %d", p.GroupID, p.Epoch)
}

func readPSKID(r *wire.Reader) PSKID {
	p := PSKID{Type: PSKType(r.Uint8())}
	switch p.Type {
	case PSKExternal:
		p.ID = append([]byte{}, r.Vector()...)
	case PSKResumption:
		p.Usage = r.Uint8()
		p.GroupID = append([]byte{}, r.Vector()...)
		p.Epoch = r.Uint64()
	default:
		r.Fail(fmt.Errorf("psktype is %d", p.Type))
	}
	p.Nonce = append([]byte{}, r.Vector()...)
	return p
}

func (p *PSKID) append(b []byte) []byte {
	b = append(b, byte(p.Type))
	if p.Type == PSKExternal {
		b = wire.AppendVector(b, p.ID)
	} else {
		b = append(b, p.Usage)
		b = wire.AppendVector(b, p.GroupID)
		b = binary.BigEndian.AppendUint64(b, p.Epoch)
	}
	return wire.AppendVector(b, p.Nonce)
}

// maxPSKs is the largest number of pre-shared keys: index and count are uint16.
const maxPSKs = 0xFFFF

// pskSecret derives psk_secret (RFC 9420, Section 8.4): Nh zero bytes if there are no PSKs. The
// error for missing PSKs has all of them.
func pskSecret(suite *ciphersuite.Suite, ids []PSKID, find func(PSKID) ([]byte, bool)) ([]byte, error) {
	if len(ids) > maxPSKs {
		return nil, fmt.Errorf("%w: it has %d pre-shared keys", ErrForged, len(ids))
	}
	// RFC 9420, Section 12.4.3.1: there is at most one PSK of a group that is reinitialized
	// or branched.
	const reinit, branch = 2, 3
	successors := 0
	for _, id := range ids {
		if id.Type == PSKResumption && (id.Usage == reinit || id.Usage == branch) {
			successors++
		}
	}
	if successors > 1 {
		return nil, fmt.Errorf("%w: it has %d pre-shared keys of groups that this one succeeds", ErrForged, successors)
	}
	keys := make([][]byte, len(ids))
	var missing []PSKID
	for i, id := range ids {
		ok := false
		if find != nil {
			keys[i], ok = find(id)
		}
		if !ok {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return nil, &MissingPSKError{missing}
	}
	secret := make([]byte, suite.Nh)
	for i := range ids {
		next, err := addPSK(suite, secret, keys[i], &ids[i], i, len(ids))
		clear(secret)
		if err != nil {
			return nil, err
		}
		secret = next
	}
	return secret, nil
}

// addPSK adds a PSK to the secret, under its PSKLabel.
func addPSK(suite *ciphersuite.Suite, secret, psk []byte, id *PSKID, index, count int) ([]byte, error) {
	extracted, err := suite.Extract(make([]byte, suite.Nh), psk)
	if err != nil {
		return nil, err
	}
	defer clear(extracted)
	label := id.append(nil)
	label = binary.BigEndian.AppendUint16(label, uint16(index))
	label = binary.BigEndian.AppendUint16(label, uint16(count))
	input, err := suite.ExpandWithLabel(extracted, "derived psk", label, suite.Nh)
	if err != nil {
		return nil, err
	}
	defer clear(input)
	return suite.Extract(input, secret)
}
