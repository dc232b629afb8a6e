package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// KeyDiagnosis is what Diagnose found of a key that the store depends on.
type KeyDiagnosis struct {
	Object     string // such as "signature key"
	Name       string // of whom, if the kind of key does not say it
	ID         []byte // CKA_ID
	OK         bool
	Reason     string               // why not
	Attributes *token.KeyAttributes // nil if the key is not there
}

// keyCheck is a key that is to be looked at, and how.
type keyCheck struct {
	object, name string
	id           []byte
	check        func(context.Context) error
}

// diagnoseKeys looks at every key that the store depends on, and at what else in the
// token is labeled as this program's.
func (o *Operator) diagnoseKeys(ctx context.Context, t *token.Token, d *Diagnosis) error {
	checks, err := o.keyChecks(ctx, t)
	if err != nil {
		return err
	}
	objects, err := t.Objects(ctx)
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

// diagnose looks at a key; objects are those of its CKA_ID.
func (c *keyCheck) diagnose(ctx context.Context, objects []*token.ObjectInfo) KeyDiagnosis {
	k := KeyDiagnosis{Object: c.object, Name: c.name, ID: c.id}
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
func (o *Operator) keyChecks(ctx context.Context, t *token.Token) ([]keyCheck, error) {
	wrapping, err := o.wrappingKeyChecks(ctx, t)
	if err != nil {
		return nil, err
	}
	signature, err := o.signatureKeyChecks(ctx, t)
	if err != nil {
		return nil, err
	}
	audit, err := o.auditKeyChecks(ctx, t)
	return append(append(wrapping, signature...), audit...), err
}

func (o *Operator) wrappingKeyChecks(ctx context.Context, t *token.Token) ([]keyCheck, error) {
	keys, err := o.store.WrappingKeys(ctx)
	objects := map[store.Purpose]string{store.Seal: "sealing key", store.Wrap: "wrapping key"}
	var checks []keyCheck
	for _, k := range keys {
		if k.TokenSerial != t.Info().Serial || !k.DestroyedAt.IsZero() {
			continue
		}
		checks = append(checks, keyCheck{objects[k.Purpose], "", k.ID, func(ctx context.Context) error { return o.checkWrappingKey(ctx, t, &k) }})
		if m, err := inventory.MechanismOf(&k); err == nil && m == vault.RSAOAEP { // the check of the key itself uses both
			checks = append(checks, keyCheck{"stamping key", fmt.Sprintf("%x", k.ID), vault.StampingKeyID(k.ID),
				func(ctx context.Context) error { _, err := vault.OpenRSA(ctx, t, k.ID); return err }})
		}
	}
	return checks, err
}

func (o *Operator) checkWrappingKey(ctx context.Context, t *token.Token, k *store.WrappingKey) error {
	c, err := o.recognize(ctx, t, k)
	if v, ok := c.(vault.Sealer); err == nil && ok {
		_, err = v.Prove(ctx, o.rand)
	}
	return err
}

func (o *Operator) signatureKeyChecks(ctx context.Context, t *token.Token) ([]keyCheck, error) {
	identities, err := o.store.Identities(ctx)
	if err != nil {
		return nil, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	var checks []keyCheck
	for _, id := range identities {
		versions, err := o.store.Versions(ctx, id.Name)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if v.TokenSerial == t.Info().Serial && v.DestroyedAt.IsZero() {
				checks = append(checks, keyCheck{"signature key", fmt.Sprintf("%s, version %d", v.Name, v.Version), v.KeyID,
					func(ctx context.Context) error { return checkSignatureKey(ctx, inv, t, &v) }})
			}
		}
	}
	return checks, nil
}

func checkSignatureKey(ctx context.Context, inv *inventory.Inventory, t *token.Token, v *store.Identity) error {
	if err := inv.CheckIdentity(ctx, v); err != nil {
		return err
	}
	key, err := findKey(ctx, t, token.KeyQuery{ID: v.KeyID}, v.WeakKey)
	if err != nil {
		return err
	}
	if !bytes.Equal(key.PublicKey(), v.SignatureKey) {
		return identity.ErrKeyMismatch
	}
	return key.TryOut()
}

func (o *Operator) auditKeyChecks(ctx context.Context, t *token.Token) ([]keyCheck, error) {
	keys, err := o.store.AuditKeys(ctx)
	var checks []keyCheck
	for i, k := range keys {
		if k.TokenSerial != t.Info().Serial {
			continue
		}
		check := keyCheck{"audit key", k.Origin, k.KeyID, func(ctx context.Context) error { return checkAuditKey(ctx, t, &k) }}
		if i < len(keys)-1 { // which signs no more, and may have been lost
			check.name += ", replaced"
			check.check = func(ctx context.Context) error {
				if err := checkAuditKey(ctx, t, &k); !errors.Is(err, token.ErrNotFound) {
					return err
				}
				return nil
			}
		}
		checks = append(checks, check)
	}
	return checks, err
}

func checkAuditKey(ctx context.Context, t *token.Token, k *store.AuditKey) error {
	key, err := signer.Find(ctx, t, token.KeyQuery{ID: k.KeyID})
	if err != nil {
		return err
	}
	return errors.Join(sameAuditKey(k, key), key.TryOut())
}
