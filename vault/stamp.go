package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// ErrStamp reports a stamp that does not fit its record: one of the two was changed, or
// another wrapping key made the stamp.
var ErrStamp = errors.New("record was changed outside of hsm-kp")

// stampLabel separates stamps from sealed private keys.
const stampLabel = "hsm-kp stamp"

// stampPlaintext is the plaintext of a stamp. Some tokens refuse to encrypt an empty one.
var stampPlaintext [16]byte

// Stamp implements Sealer. A stamp is a Blob of cipher suite 0 whose plaintext is 16 zero
// bytes and whose additional data is
//
//	opaque label<V> = "hsm-kp stamp"
//	all bytes of the blob before the nonce
//	opaque kind<V>
//	opaque record<V>
func (v *Vault) Stamp(ctx context.Context, rand io.Reader, kind string, record []byte) ([]byte, error) {
	blob := Blob{KeyID: v.id}
	if _, err := io.ReadFull(rand, blob.Nonce[:]); err != nil {
		return nil, fmt.Errorf("stamp %s: %w", kind, err)
	}
	var err error
	blob.Ciphertext, err = v.key.Seal(ctx, &blob.Nonce, stampPlaintext[:], blob.stampData(kind, record))
	if err != nil {
		return nil, fmt.Errorf("stamp %s: %w", kind, err)
	}
	return blob.Bytes(), nil
}

// CheckStamp implements Sealer.
func (v *Vault) CheckStamp(ctx context.Context, kind string, record, stamp []byte) error {
	blob, err := ParseBlob(stamp)
	if err != nil || blob.Suite != 0 || !bytes.Equal(blob.KeyID, v.id) {
		return fmt.Errorf("check %s: %w", kind, ErrStamp)
	}
	opened, err := v.key.Open(ctx, blob.Nonce, blob.Ciphertext, blob.stampData(kind, record))
	if errors.Is(err, token.ErrDecrypt) {
		return fmt.Errorf("check %s: %w: %w", kind, ErrStamp, err)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", kind, err)
	}
	if !bytes.Equal(opened, stampPlaintext[:]) {
		return fmt.Errorf("check %s: %w", kind, ErrStamp)
	}
	return nil
}

// StampKey returns the id of the wrapping key that made a stamp, which it does not check. The
// error is ErrStamp if the stamp is malformed.
func StampKey(stamp []byte) (KeyID, error) {
	if blob, err := ParseBlob(stamp); err == nil {
		return blob.KeyID, nil
	}
	r := wire.NewReader(stamp)
	if s := readRSAStamp(r); r.Finish() == nil && s.id != nil {
		return s.id, nil
	}
	return nil, ErrStamp
}

func (b *Blob) stampData(kind string, record []byte) []byte {
	out := wire.AppendVector(nil, []byte(stampLabel))
	out = b.appendHeader(out)
	out = wire.AppendVector(out, []byte(kind))
	return wire.AppendVector(out, record)
}

// kindWrappingKey is the kind of a wrapping key's own stamp, over its id.
const kindWrappingKey = "wrapping key"

// Prove implements Sealer. It checks that what the key seals opens, and does not open with
// other additional data. A token with a broken AES-GCM would otherwise lose every private
// key unnoticed.
func (v *Vault) Prove(ctx context.Context, rand io.Reader) ([]byte, error) {
	stamp, err := v.Stamp(ctx, rand, kindWrappingKey, v.id)
	if err != nil {
		return nil, err
	}
	if err := v.CheckStamp(ctx, kindWrappingKey, v.id, stamp); err != nil {
		return nil, fmt.Errorf("the token does not open what it sealed: %w", err)
	}
	err = v.CheckStamp(ctx, kindWrappingKey, append([]byte("other "), v.id...), stamp)
	if !errors.Is(err, ErrStamp) {
		return nil, fmt.Errorf("%w: the token opens what was sealed with other additional data (%v)", ErrWeakKey, err)
	}
	return stamp, nil
}

// Recognize implements Custodian.
func (v *Vault) Recognize(ctx context.Context, stamp []byte) error {
	return v.CheckStamp(ctx, kindWrappingKey, v.id, stamp)
}
