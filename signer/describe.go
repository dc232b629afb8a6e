package signer

import (
	"context"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/token"
)

// Description describes a signature key in a token. Nothing in it is secret.
type Description struct {
	ID         []byte // CKA_ID
	Label      string // CKA_LABEL
	Scheme     ciphersuite.SignatureScheme
	PublicKey  []byte // encoded as in RFC 9420, Section 5.1.1
	Attributes token.KeyAttributes
	Weak       []string // the attributes for which Find refuses the key, in words; usually none
}

// List returns a Description of each key in the token that is of a signature scheme of MLS,
// including weak ones. It leaves out other private keys. The error is the token's.
func List(ctx context.Context, t *token.Token) ([]Description, error) {
	pairs, err := t.KeyPairs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list signature keys: %w", err)
	}
	var list []Description
	for _, pair := range pairs {
		if pair.Public == nil {
			continue
		}
		if public, err := parsePublic(pair.Public); err == nil {
			list = append(list, describe(pair.ID, pair.Label, public, pair.Attributes))
		}
	}
	return list, nil
}

// Describe reads the key's attributes from the token and returns its Description. The error is
// the token's.
func (k *Key) Describe(ctx context.Context) (Description, error) {
	a, err := k.signing.Attributes(ctx)
	if err != nil {
		return Description{}, err
	}
	return describe(k.ID(), k.Label(), k.public, a), nil
}

func describe(id []byte, label string, public *ciphersuite.PublicKey, a token.KeyAttributes) Description {
	return Description{
		ID:         id,
		Label:      label,
		Scheme:     public.Scheme(),
		PublicKey:  public.Bytes(),
		Attributes: a,
		Weak:       weaknesses(a),
	}
}
