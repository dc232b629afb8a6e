package diagnosis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Key is the result for a key that the store depends on.
type Key struct {
	Object     string // such as "signature key"
	Name       string // of the identity or origin that it belongs to, if any
	ID         []byte // CKA_ID
	OK         bool
	Reason     string               // why not
	Attributes *token.KeyAttributes // nil if the key is not there
}

// keyCheck is a key to check, and the function that checks it.
type keyCheck struct {
	object, name string
	id           []byte
	check        func(context.Context) error
}

// diagnoseKeys checks every key that the store depends on, and finds other objects in the token
// with this program's labels.
func (s *Subject) diagnoseKeys(ctx context.Context, d *Diagnosis) error {
	checks, err := s.keyChecks(ctx)
	if err != nil {
		return err
	}
	objects, err := s.Token.Objects(ctx)
	if err != nil {
		return err
	}
	byID, known := make(map[string][]*token.ObjectInfo), make(map[string]bool)
	for i := range objects {
		id := string(objects[i].ID)
		byID[id] = append(byID[id], &objects[i])
	}
	for _, c := range checks {
		known[string(c.id)] = true
		d.Keys = append(d.Keys, c.diagnose(ctx, byID[string(c.id)]))
	}
	for _, object := range objects {
		if !known[string(object.ID)] && strings.HasPrefix(object.Label, "hsm-kp ") {
			d.Unknown = append(d.Unknown, object)
		}
	}
	return ctx.Err()
}

// diagnose checks a key; objects are those with its CKA_ID.
func (c *keyCheck) diagnose(ctx context.Context, objects []*token.ObjectInfo) Key {
	k := Key{Object: c.object, Name: c.name, ID: c.id}
	for _, o := range objects {
		if o.Class != token.ClassPublicKey {
			k.Attributes = &o.Attributes
		}
	}
	if err := c.check(ctx); err != nil {
		k.Reason = err.Error()
		return k
	}
	k.OK = true
	return k
}

// keyChecks returns the checks of all keys that are in this token and not destroyed.
func (s *Subject) keyChecks(ctx context.Context) ([]keyCheck, error) {
	wrapping, err := s.wrappingKeyChecks(ctx)
	if err != nil {
		return nil, err
	}
	signature, err := s.signatureKeyChecks(ctx)
	if err != nil {
		return nil, err
	}
	trail, err := s.auditKeyChecks(ctx)
	return append(append(wrapping, signature...), trail...), err
}

func (s *Subject) wrappingKeyChecks(ctx context.Context) ([]keyCheck, error) {
	keys, err := s.Store.WrappingKeys(ctx)
	objects := map[store.Purpose]string{store.Seal: "sealing key", store.Wrap: "wrapping key"}
	var checks []keyCheck
	for _, k := range keys {
		if k.TokenSerial != s.Token.Info().Serial || !k.DestroyedAt.IsZero() {
			continue
		}
		checks = append(checks, keyCheck{objects[k.Purpose], "", k.ID, func(ctx context.Context) error { return s.checkWrappingKey(ctx, &k) }})
		if m, err := inventory.MechanismOf(&k); err == nil && m == vault.RSAOAEP { // the check of the key itself uses both
			checks = append(checks, keyCheck{"stamping key", fmt.Sprintf("%x", k.ID), vault.StampingKeyID(k.ID),
				func(ctx context.Context) error { _, err := vault.OpenRSA(ctx, s.Token, k.ID); return err }})
		}
	}
	return checks, err
}

func (s *Subject) checkWrappingKey(ctx context.Context, k *store.WrappingKey) error {
	c, err := s.Inventory.Recognize(ctx, k)
	if v, ok := c.(vault.Sealer); err == nil && ok {
		_, err = v.Prove(ctx, s.Rand)
	}
	return err
}

func (s *Subject) signatureKeyChecks(ctx context.Context) ([]keyCheck, error) {
	identities, err := s.Store.Identities(ctx)
	if err != nil {
		return nil, err
	}
	var checks []keyCheck
	for _, id := range identities {
		versions, err := s.Store.Versions(ctx, id.Name)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if v.TokenSerial == s.Token.Info().Serial && v.DestroyedAt.IsZero() {
				checks = append(checks, keyCheck{"signature key", fmt.Sprintf("%s, version %d", v.Name, v.Version), v.KeyID,
					func(ctx context.Context) error { return s.checkSignatureKey(ctx, &v) }})
			}
		}
	}
	return checks, nil
}

func (s *Subject) checkSignatureKey(ctx context.Context, v *store.Identity) error {
	if err := s.Inventory.CheckIdentity(ctx, v); err != nil {
		return err
	}
	var options []signer.Option
	if v.WeakKey {
		options = append(options, signer.AllowWeak())
	}
	key, err := signer.Find(ctx, s.Token, token.KeyQuery{ID: v.KeyID}, options...)
	if err != nil {
		return err
	}
	if !bytes.Equal(key.PublicKey(), v.SignatureKey) {
		return identity.ErrKeyMismatch
	}
	return key.TryOut()
}

func (s *Subject) auditKeyChecks(ctx context.Context) ([]keyCheck, error) {
	keys, err := s.Store.AuditKeys(ctx)
	var checks []keyCheck
	for i, k := range keys {
		if k.TokenSerial != s.Token.Info().Serial {
			continue
		}
		check := keyCheck{"audit key", k.Origin, k.KeyID, func(ctx context.Context) error { return s.checkAuditKey(ctx, &k) }}
		if i < len(keys)-1 { // which no longer signs, and may have been lost
			check.name += ", replaced"
			check.check = func(ctx context.Context) error {
				if err := s.checkAuditKey(ctx, &k); !errors.Is(err, token.ErrNotFound) {
					return err
				}
				return nil
			}
		}
		checks = append(checks, check)
	}
	return checks, err
}

func (s *Subject) checkAuditKey(ctx context.Context, k *store.AuditKey) error {
	key, err := signer.Find(ctx, s.Token, token.KeyQuery{ID: k.KeyID})
	if err != nil {
		return err
	}
	return errors.Join(audit.CheckVerifier(k.Origin, k.VerifierKey, key.Public()), key.TryOut())
}
