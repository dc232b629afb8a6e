package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// aesKey is an AES-256 key in the token. Its handle was found once and is kept.
type aesKey struct {
	token  *Token
	id     []byte
	label  string
	handle pkcs11.ObjectHandle
}

// ID returns a copy of CKA_ID.
func (k *aesKey) ID() []byte { return bytes.Clone(k.id) }

// Label returns CKA_LABEL.
func (k *aesKey) Label() string { return k.label }

// Attributes reads the key's attributes from the token.
func (k *aesKey) Attributes(ctx context.Context) (KeyAttributes, error) {
	a, err := k.token.attributesOf(ctx, k.handle)
	if err != nil {
		return KeyAttributes{}, fmt.Errorf("read attributes of wrapping key %x: %w", k.id, err)
	}
	return a, nil
}

// generate generates the key in the token, for these uses and no other.
func (k *aesKey) generate(ctx context.Context, uses ...uint) error {
	return k.token.pool.with(ctx, func(s *session) (err error) {
		if err := s.requireNew(pkcs11.CKO_SECRET_KEY, k.id); err != nil {
			return err
		}
		k.handle, err = s.generateAES(append(aesTemplate(true, uses...),
			attr(pkcs11.CKA_ID, k.id),
			attr(pkcs11.CKA_LABEL, k.label),
		))
		return err
	})
}

func (s *session) generateAES(template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	h, err := s.api.GenerateKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_GEN, nil), template)
	return h, callError("C_GenerateKey", err)
}

// aesTemplate sets every attribute that matters: defaults are the vendor's. The
// key stays in the token, or goes with the session.
func aesTemplate(onToken bool, uses ...uint) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_VALUE_LEN, 32),
		attr(pkcs11.CKA_TOKEN, onToken),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, false),
	}
	for _, use := range []uint{
		pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP,
		pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE,
	} {
		template = append(template, attr(use, slices.Contains(uses, use)))
	}
	return template
}

// find finds the handle and the label of the key with the ID.
func (k *aesKey) find(s *session) (err error) {
	if len(k.id) == 0 {
		return errors.New("no id given")
	}
	k.handle, err = s.findOne(
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_TOKEN, true),
		attr(pkcs11.CKA_ID, k.id),
	)
	if err != nil {
		return err
	}
	length, known, err := s.number(k.handle, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return err
	}
	if known && length != 32 {
		return fmt.Errorf("%w: AES key of %d bytes, want 32", ErrUnsupported, length)
	}
	label, err := s.attribute(k.handle, pkcs11.CKA_LABEL)
	k.label = string(label)
	return err
}
