package operator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/policy"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// CreateIdentityRequest says which identity to create.
type CreateIdentityRequest struct {
	// Name has up to 128 bytes of printable UTF-8.
	Name string
	// Suite is a cipher suite by name or number; empty: the config's.
	Suite string
	// X509 makes an identity that waits for certificates: until ImportCertificate it signs no key
	// packages.
	X509 bool
	// Credential is the identity of a basic credential (RFC 9420, Section 5.3); empty: Name. An
	// identity with certificates has none.
	Credential string
	// Key finds a signature key that is in the token already; zero: a new one is generated there.
	Key token.KeyQuery
	// AllowWeakKey accepts a key even if its attributes let it leave the token.
	AllowWeakKey bool
	// Custody is that of the key packages which the identity is for; empty: any.
	Custody string
}

// CreateIdentity makes an identity: a signature key in the token, and its record. The error is
// store.ErrExists if the name is taken.
func (o *Operator) CreateIdentity(ctx context.Context, r CreateIdentityRequest) (store.Identity, error) {
	if err := identity.CheckName(r.Name); err != nil {
		return store.Identity{}, requestf("%v", err)
	}
	if r.X509 && r.Credential != "" {
		return store.Identity{}, requestf("an identity with certificates has no basic credential")
	}
	suite, err := policy.Suite(o.settings, r.Suite)
	if err != nil {
		return store.Identity{}, err
	}
	if r.X509 && suite.Signature == ciphersuite.ED448 {
		return store.Identity{}, requestf("%v, and %v has Ed448 keys", certificate.ErrKey, suite.ID)
	}
	switch _, err := o.store.Identity(ctx, r.Name); {
	case err == nil:
		return store.Identity{}, fmt.Errorf("create identity %q: %w", r.Name, store.ErrExists)
	case !errors.Is(err, store.ErrNotFound):
		return store.Identity{}, err
	}
	return o.createIdentity(ctx, suite, &r)
}

// createIdentity makes the key and the record of a checked request.
func (o *Operator) createIdentity(ctx context.Context, suite *ciphersuite.Suite, r *CreateIdentityRequest) (store.Identity, error) {
	credential := keypackage.X509Credential(nil)
	if !r.X509 {
		credential = keypackage.BasicCredential([]byte(cmp.Or(r.Credential, r.Name)))
	}
	record := store.Identity{
		Name: r.Name, Version: 1, State: store.Current, Suite: uint16(suite.ID), Credential: credential.Bytes(), WeakKey: r.AllowWeakKey,
		Custody: r.Custody,
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return store.Identity{}, err
	}
	if len(r.Key.ID) == 0 && r.Key.Label == "" {
		return record, o.withNewKey(ctx, inv, &record, o.store.AddIdentity)
	}
	key, err := o.existingKey(ctx, suite, r)
	if err == nil {
		err = o.addVersion(ctx, inv, &record, key, o.store.AddIdentity)
	}
	return record, err
}

// withNewKey makes a signature key for a version of an identity, and records the version by add.
// If that fails, the key is destroyed again.
func (o *Operator) withNewKey(ctx context.Context, inv *inventory.Inventory, record *store.Identity, add func(context.Context, store.Identity) error) error {
	suite, ok := ciphersuite.Lookup(ciphersuite.ID(record.Suite))
	if !ok {
		return fmt.Errorf("identity %q: cipher suite %v: %w", record.Name, ciphersuite.ID(record.Suite), inventory.ErrSuiteUnknown)
	}
	t, err := o.Token(ctx)
	if err != nil {
		return err
	}
	id, err := vault.NewKeyID(o.rand)
	if err != nil {
		return err
	}
	intent := store.Intent{KeyID: id, Object: store.ObjectSignatureKey, TokenSerial: t.Info().Serial, CreatedAt: o.now()}
	return inv.Make(ctx, intent, func(ctx context.Context) error {
		key, err := signer.Generate(ctx, t, suite.Signature, id, "hsm-kp identity "+record.Name)
		if err != nil {
			return fmt.Errorf("generate signature key of %q: %w", record.Name, err)
		}
		if err := o.addVersion(ctx, inv, record, key, add); err != nil {
			return err
		}
		o.keep(key, record.WeakKey)
		return nil
	})
}

// addVersion records, by add, a version of an identity that signs with key.
func (o *Operator) addVersion(ctx context.Context, inv *inventory.Inventory, record *store.Identity, key *signer.Key, add func(context.Context, store.Identity) error) error {
	record.SignatureKey, record.KeyID, record.KeyLabel = key.PublicKey(), key.ID(), key.Label()
	record.TokenSerial, record.CreatedAt = inv.TokenSerial(), o.now().UTC().Truncate(time.Second)
	err := inv.StampIdentity(ctx, record)
	if err == nil {
		err = add(ctx, *record)
	}
	if err != nil {
		return fmt.Errorf("record identity %q: %w", record.Name, err)
	}
	return nil
}

// existingKey finds the key that a request names.
func (o *Operator) existingKey(ctx context.Context, suite *ciphersuite.Suite, r *CreateIdentityRequest) (*signer.Key, error) {
	t, err := o.Token(ctx)
	if err != nil {
		return nil, err
	}
	key, err := findKey(ctx, t, r.Key, r.AllowWeakKey)
	if err != nil {
		return nil, err
	}
	if key.Scheme() != suite.Signature {
		return nil, requestf("a key of %v cannot sign for %v", key.Scheme(), suite.ID)
	}
	return key, o.warnSharedKey(ctx, key.ID(), t.Info().Serial)
}

// warnSharedKey warns of identities that have the same key: a group takes a signature key once
// (RFC 9420, Section 7.3).
func (o *Operator) warnSharedKey(ctx context.Context, keyID []byte, serial string) error {
	others, err := o.store.Identities(ctx)
	for i := range others {
		if bytes.Equal(others[i].KeyID, keyID) && others[i].TokenSerial == serial {
			o.warnf("identity %q has the same signature key; the two cannot be in one group", others[i].Name)
		}
	}
	return err
}
