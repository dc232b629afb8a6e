package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// keyDiagnosis is what doctor found of a key that the store depends on.
type keyDiagnosis struct {
	Object     string               `json:"object"` // such as "signature key"
	Name       string               `json:"name,omitempty"`
	KeyID      string               `json:"key_id"`
	OK         bool                 `json:"ok"`
	Reason     string               `json:"reason,omitempty"` // why not
	Attributes *token.KeyAttributes `json:"attributes,omitempty"`
}

// keyCheck is a key that is to be looked at, and how.
type keyCheck struct {
	object, name string
	id           []byte
	check        func(context.Context) error
}

// diagnoseKeys looks at every key that the store depends on, and at what else in the
// token is labelled as hsm-kp's.
func (d *diagnosis) diagnoseKeys(ctx context.Context, s store.Store, t *token.Token) error {
	checks, err := keyChecks(ctx, s, t)
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
	for _, o := range objects {
		if !known[string(o.ID)] && strings.HasPrefix(o.Label, "hsm-kp ") {
			d.Unknown = append(d.Unknown, o)
		}
	}
	return ctx.Err()
}

// diagnose looks at a key; objects are those of its CKA_ID.
func (c *keyCheck) diagnose(ctx context.Context, objects []*token.ObjectInfo) keyDiagnosis {
	k := keyDiagnosis{Object: c.object, Name: c.name, KeyID: hex.EncodeToString(c.id)}
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

// keyChecks are the checks of all keys that are in this token, and not destroyed.
func keyChecks(ctx context.Context, s store.Store, t *token.Token) ([]keyCheck, error) {
	wrapping, err := s.WrappingKeys(ctx)
	if err != nil {
		return nil, err
	}
	var checks []keyCheck
	serial := t.Info().Serial
	for _, k := range wrapping {
		if k.TokenSerial == serial && k.DestroyedAt.IsZero() {
			checks = append(checks, keyCheck{map[store.Purpose]string{store.Seal: "sealing key", store.Wrap: "wrapping key"}[k.Purpose], "", k.ID,
				func(ctx context.Context) error { return checkWrappingKey(ctx, t, &k) }})
			if m, err := inventory.MechanismOf(&k); err == nil && m == vault.RSAOAEP { // the check of the key itself uses both
				checks = append(checks, keyCheck{"stamping key", fmt.Sprintf("%x", k.ID), vault.StampingKeyID(k.ID),
					func(ctx context.Context) error { _, err := vault.OpenRSA(ctx, t, k.ID); return err }})
			}
		}
	}
	identities, err := s.Identities(ctx)
	if err != nil {
		return nil, err
	}
	inv := inventory.New(inventory.Config{Store: s, Ring: operator.NewRing(t, rand.Reader), Rand: rand.Reader})
	for _, id := range identities {
		versions, err := s.Versions(ctx, id.Name)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if v.TokenSerial == serial && v.DestroyedAt.IsZero() {
				checks = append(checks, keyCheck{"signature key", fmt.Sprintf("%s, version %d", v.Name, v.Version), v.KeyID,
					func(ctx context.Context) error { return checkSignatureKey(ctx, inv, t, &v) }})
			}
		}
	}
	auditKeys, err := s.AuditKeys(ctx)
	for i, k := range auditKeys {
		if k.TokenSerial != serial {
			continue
		}
		check := keyCheck{"audit key", k.Origin, k.KeyID, func(ctx context.Context) error { return checkAuditKey(ctx, t, &k) }}
		if i < len(auditKeys)-1 { // which signs no more, and may have been lost
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

func checkWrappingKey(ctx context.Context, t *token.Token, k *store.WrappingKey) error {
	c, err := recognized(ctx, t, k)
	if v, ok := c.(vault.Sealer); err == nil && ok {
		_, err = v.Prove(ctx, rand.Reader)
	}
	return err
}

func checkSignatureKey(ctx context.Context, inv *inventory.Inventory, t *token.Token, v *store.Identity) error {
	if err := inv.CheckIdentity(ctx, v); err != nil {
		return err
	}
	key, err := operator.FindKey(ctx, t, token.KeyQuery{ID: v.KeyID}, v.WeakKey)
	if err != nil {
		return err
	}
	if !bytes.Equal(key.PublicKey(), v.SignatureKey) {
		return identity.ErrKeyMismatch
	}
	return key.TryOut()
}

func checkAuditKey(ctx context.Context, t *token.Token, k *store.AuditKey) error {
	key, err := signer.Find(ctx, t, token.KeyQuery{ID: k.KeyID})
	if err != nil {
		return err
	}
	return errors.Join(operator.SameAuditKey(k, key), key.TryOut())
}

func (d *diagnosis) printKeys(u *ui) {
	if len(d.Keys) == 0 {
		return
	}
	u.printf("\nkeys that the store depends on\n")
	for _, k := range d.Keys {
		result := "ok"
		if !k.OK {
			result = "no: " + printable(k.Reason)
		}
		u.printf("%s\n", strings.TrimRight(fmt.Sprintf("  %-14s %s  %s  %s", k.Object, k.KeyID, result, printable(k.Name)), " "))
	}
	for _, o := range d.Unknown {
		u.printf("  not in the store: %v %x %s\n", o.Class, o.ID, printable(o.Label))
	}
}
