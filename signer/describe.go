package signer

import (
	"context"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/token"
)

// Description tells about a signature key in a token.
type Description struct {
	ID         []byte // CKA_ID
	Label      string // CKA_LABEL
	Scheme     ciphersuite.SignatureScheme
	PublicKey  []byte // as RFC 9420, Section 5.1.1, encodes it
	Attributes token.KeyAttributes
	Weak       []string // what makes Find refuse the key; empty: nothing
}

// List describes the keys in the token that are for a signature scheme of MLS,
// weak ones too. Other private keys in the token are left out.
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

// Describe reads the key's attributes from the token.
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
