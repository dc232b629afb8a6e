package directory

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// What the OpenMLS delivery service sends and accepts:
//
//	struct {
//	    opaque key_package_ref<0..255>;     /* length in one byte */
//	    KeyPackage key_package;
//	} ClientKeyPackage;
//
//	ClientKeyPackage client_key_packages<0..2^32-1>;    /* length in four bytes */
//	opaque auth_token<V>;                   /* 32 bytes */

// tokenSize is the length of an auth token.
const tokenSize = 32

// clientKeyPackages encodes ClientKeyPackages.
func clientKeyPackages(items []Item) []byte {
	b := make([]byte, 4)
	for i := range items {
		b = append(append(b, byte(len(items[i].Ref))), items[i].Ref...)
		b = append(b, items[i].KeyPackage.Bytes()...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// parseClientKeyPackages decodes ClientKeyPackages and returns the refs in it. Each must be that of
// its key package, unless the suite is unknown. The error wraps ErrAnswer.
func parseClientKeyPackages(b []byte) ([]keypackage.Ref, error) {
	r := wire.NewReader(b)
	if n := r.Uint32(); r.Err() == nil && uint64(n) != uint64(r.Len()) {
		return nil, fmt.Errorf("%w: it has %d bytes of key packages, but announces %d", ErrAnswer, r.Len(), n)
	}
	var refs []keypackage.Ref
	for r.Err() == nil && r.Len() > 0 {
		ref := keypackage.Ref(r.Bytes(int(r.Uint8())))
		kp := wire.Next(r, keypackage.ReadKeyPackage)
		if r.Err() != nil {
			break
		}
		if own, err := kp.Ref(); err == nil && !bytes.Equal(own, ref) {
			return nil, fmt.Errorf("%w: a KeyPackageRef is not that of its key package", ErrAnswer)
		}
		refs = append(refs, bytes.Clone(ref))
	}
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return refs, nil
}

// parseAuthToken decodes an auth token. The error wraps ErrAnswer and contains nothing of the
// token.
func parseAuthToken(b []byte) ([]byte, error) {
	r := wire.NewReader(b)
	token := r.Vector()
	if err := r.Finish(); err != nil || len(token) != tokenSize {
		return nil, fmt.Errorf("%w: it is not a token of %d bytes", ErrAnswer, tokenSize)
	}
	return bytes.Clone(token), nil
}

func appendAuthToken(b, token []byte) []byte { return wire.AppendVector(b, token) }
