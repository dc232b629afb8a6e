package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

var (
	// ErrNoAuditKey reports that no checkpoint was made yet.
	ErrNoAuditKey = errors.New("there is no audit key yet")
	// ErrAuditKeyLost reports an audit key that was recorded and is not in the token, with the
	// token's error.
	ErrAuditKeyLost = errors.New("find the audit key")
)

// isLost reports whether an audit key is no longer in the token.
func isLost(err error) bool {
	return errors.Is(err, token.ErrNotFound) || errors.Is(err, audit.ErrOtherKey)
}

// AuditKeys returns the keys that sign or have signed checkpoints, the oldest first: the last one
// signs. The error is ErrNoAuditKey if there are none. It needs no token.
func (o *Operator) AuditKeys(ctx context.Context) ([]store.AuditKey, error) {
	keys, err := o.store.AuditKeys(ctx)
	if err == nil && len(keys) == 0 {
		err = ErrNoAuditKey
	}
	return keys, err
}

// NewAuditKey makes an audit key that replaces the current one. The previous key signs a last
// checkpoint, over the entry that names the new one: who trusts the previous key trusts the new one. That
// checkpoint is returned. It is empty if there was no key before, or if that key is lost, of which
// the act warns.
func (o *Operator) NewAuditKey(ctx context.Context) (last []byte, err error) {
	before, err := o.currentAuditKey(ctx)
	if err != nil {
		return nil, err
	}
	made, err := o.makeAuditKey(ctx, before)
	switch {
	case err != nil:
		return nil, err
	case !made:
		return nil, fmt.Errorf("new audit key: %w: another process made one at the same time", store.ErrState)
	case len(before) == 0:
		return nil, nil
	}
	result, announced, err := o.verifyOwn(ctx)
	if err != nil {
		return nil, err
	}
	last, err = o.handOver(ctx, result, announced)
	if isLost(err) {
		o.warnf("the previous audit key is lost, and vouches for no other: hand the verifier key to all who verify")
		return nil, nil
	}
	return last, err
}

// auditKey returns the key that signs checkpoints. The first time, it makes it.
func (o *Operator) auditKey(ctx context.Context) (*signer.Key, store.AuditKey, error) {
	keys, err := o.store.AuditKeys(ctx)
	if err == nil && len(keys) == 0 {
		if _, err = o.makeAuditKey(ctx, nil); err == nil {
			keys, err = o.store.AuditKeys(ctx)
		}
	}
	if err != nil {
		return nil, store.AuditKey{}, err
	}
	record := keys[len(keys)-1]
	key, err := o.findAuditKey(ctx, &record)
	return key, record, err
}

// findAuditKey returns an audit key that was recorded.
func (o *Operator) findAuditKey(ctx context.Context, record *store.AuditKey) (*signer.Key, error) {
	t, err := o.Token(ctx)
	if err != nil {
		return nil, err
	}
	key, err := findKey(ctx, t, token.KeyQuery{ID: record.KeyID}, false)
	switch {
	case errors.Is(err, token.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", ErrAuditKeyLost, err)
	case err != nil:
		return nil, fmt.Errorf("find the audit key: %w", err)
	}
	return key, audit.CheckVerifier(record.Origin, record.VerifierKey, key.Public())
}

// currentAuditKey returns the id of the key that signs checkpoints.
func (o *Operator) currentAuditKey(ctx context.Context) ([]byte, error) {
	keys, err := o.store.AuditKeys(ctx)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return keys[len(keys)-1].KeyID, nil
}

// makeAuditKey makes an audit key that replaces another, or the first one if instead is empty.
// It reports whether it made one: of several processes at once, one does.
func (o *Operator) makeAuditKey(ctx context.Context, instead []byte) (bool, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return false, err
	}
	t, err := o.Token(ctx)
	if err != nil {
		return false, err
	}
	serial := t.Info().Serial
	id, err := vault.NewKeyID(o.rand)
	if err != nil {
		return false, err
	}
	record := store.AuditKey{
		KeyID: id, Label: "hsm-kp audit", TokenSerial: serial,
		Origin: cmp.Or(o.settings.Audit.Origin, "hsm-kp/"+serial), CreatedAt: o.now().UTC().Truncate(time.Second),
	}
	if err := audit.CheckOrigin(record.Origin); err != nil {
		return false, requestf("audit.origin: %v", err)
	}
	intent := store.Intent{KeyID: id, Object: store.ObjectAuditKey, TokenSerial: serial, CreatedAt: record.CreatedAt, Instead: instead}
	made, err := inv.Succeed(ctx, intent, o.currentAuditKey, func(ctx context.Context) error { return o.generateAuditKey(ctx, t, &record) })
	if made {
		o.notef("made the audit key; note its verifier key elsewhere: %s", record.VerifierKey)
	}
	return made, err
}

// auditSchemes are the signature schemes of checkpoints: every tool reads Ed25519, and
// every HSM signs P-256.
var auditSchemes = []ciphersuite.SignatureScheme{ciphersuite.ED25519, ciphersuite.ECDSA_SECP256R1_SHA256}

// generateAuditKey makes an audit key in the token and records it.
func (o *Operator) generateAuditKey(ctx context.Context, t *token.Token, record *store.AuditKey) error {
	var faults error
	for _, scheme := range auditSchemes {
		key, err := signer.Generate(ctx, t, scheme, record.KeyID, record.Label)
		if err != nil {
			faults = errors.Join(faults, err)
			continue
		}
		if record.VerifierKey, err = audit.VerifierKey(record.Origin, key.Public()); err != nil {
			return err
		}
		return o.store.AddAuditKey(ctx, *record)
	}
	return fmt.Errorf("make the audit key: %w", faults)
}
