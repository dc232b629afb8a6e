package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func wrapKeyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "wrap-key",
		Category: categoryKeep,
		Usage:    "the keys in the token that private keys are under: list, rotate, destroy",
		Subcommands: []*cli.Command{
			wrapKeyListCommand(u), wrapKeyCreateCommand(u), wrapKeyRotateCommand(u), wrapKeyRewrapCommand(u), wrapKeyDestroyCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("wrap-key: there is no %q; it has list, create, rotate, rewrap and destroy", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// purposeFlag says which of the two kinds of wrapping keys is meant.
func purposeFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "purpose", Usage: "`PURPOSE` of the key: seal, for custody wrapped, or wrap, for custody token", Value: string(store.Seal)}
}

func purposeOf(c *cli.Context) (store.Purpose, error) {
	p := store.Purpose(c.String("purpose"))
	if !slices.Contains(store.Purposes, p) {
		return p, usagef("%s: --purpose %q is neither seal nor wrap", c.Command.HelpName, p)
	}
	return p, nil
}

// mechanismFlag says how a wrapping key that is to be made seals.
func mechanismFlag(otherwise string) *cli.StringFlag {
	return &cli.StringFlag{Name: "mechanism", Usage: "`MECHANISM` of a new key to seal: aes-gcm, or rsa-oaep for tokens without AES-GCM", DefaultText: otherwise}
}

// mechanismOf is the mechanism that the command line names; nothing where it names none.
func mechanismOf(c *cli.Context, p store.Purpose) (vault.Mechanism, error) {
	m := vault.Mechanism(c.String("mechanism"))
	switch {
	case !c.IsSet("mechanism"):
		return "", nil
	case m != vault.AESGCM && m != vault.RSAOAEP:
		return "", usagef("%s: --mechanism %q is neither aes-gcm nor rsa-oaep", c.Command.HelpName, m)
	case p != store.Seal:
		return "", usagef("%s: --mechanism is for keys to seal, not to %s", c.Command.HelpName, p)
	}
	return m, nil
}

// wrappingKeyJSON is the JSON form of a wrapping key.
type wrappingKeyJSON struct {
	ID          string        `json:"wrapping_key_id"`
	Purpose     store.Purpose `json:"purpose"`
	Mechanism   string        `json:"mechanism"`
	State       string        `json:"state"`
	Uses        uint64        `json:"uses"`
	KeyPackages *uint64       `json:"key_packages,omitempty"` // with private keys under it
	Identities  *uint64       `json:"identities,omitempty"`   // with stamps of it
	TokenSerial string        `json:"token_serial"`
	CreatedAt   time.Time     `json:"created_at"`
	DestroyedAt *time.Time    `json:"destroyed_at,omitempty"`
}

func wrappingKeyOf(k *store.WrappingKey) wrappingKeyJSON {
	out := wrappingKeyJSON{
		ID: hex.EncodeToString(k.ID), Purpose: k.Purpose, Mechanism: mechanismName(k), State: "kept", Uses: k.Uses, TokenSerial: k.TokenSerial, CreatedAt: k.CreatedAt.UTC(),
	}
	switch {
	case !k.DestroyedAt.IsZero():
		out.State, out.DestroyedAt = "destroyed", &k.DestroyedAt
	case k.Condemned:
		out.State = "condemned"
	case k.Current:
		out.State = "current"
	}
	return out
}

// mechanismName is the mechanism that the stamp of a wrapping key tells.
func mechanismName(k *store.WrappingKey) string {
	m, err := inventory.MechanismOf(k)
	if err != nil {
		return "unknown"
	}
	return string(m)
}

// whatFor says what a wrapping key is for, and how where that is not the usual way.
func whatFor(k *store.WrappingKey) string {
	if m := mechanismName(k); m == string(vault.RSAOAEP) {
		return "to " + string(k.Purpose) + " by " + m
	}
	return "to " + string(k.Purpose)
}

func wrapKeyListCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the wrapping keys, and what is under them",
		Description: `A key is current when new key packages are put under it, kept while something may be
under it, condemned when its destruction was begun and not ended ("hsm-kp sweep" ends it), or
destroyed.

Examples:
   hsm-kp wrap-key list
   hsm-kp wrap-key list --json | jq -r 'select(.state == "kept") | .wrapping_key_id'`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			return e.listWrappingKeys(c.Context, c.Bool("json"))
		}),
	}
}

func (e *env) listWrappingKeys(ctx context.Context, asJSON bool) error {
	keys, err := e.store.WrappingKeys(ctx)
	if err != nil {
		return err
	}
	const row = "%-32s  %-7s  %-12s  %-9s  %-20s  %10s  %12s\n"
	if !asJSON && len(keys) > 0 {
		e.ui.printf(row, "WRAPPING KEY", "PURPOSE", "MECHANISM", "STATE", "CREATED", "USES", "KEY PACKAGES")
	}
	for i := range keys {
		k := wrappingKeyOf(&keys[i])
		d, err := e.store.Dependents(ctx, keys[i].ID)
		if err != nil {
			return err
		}
		if asJSON {
			k.KeyPackages, k.Identities = &d.KeyPackages, &d.Identities
			if err := e.ui.jsonLine(k); err != nil {
				return err
			}
			continue
		}
		e.ui.printf(row, k.ID, k.Purpose, k.Mechanism, k.State, k.CreatedAt.Format(time.RFC3339), fmt.Sprint(k.Uses), fmt.Sprint(d.KeyPackages))
	}
	return nil
}

func wrapKeyCreateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "create",
		Usage: "make a wrapping key in the token, to be rotated to later",
		Description: `The key is an AES-256 key that can never leave the token, and is tried out before it is
recorded. The first one of its purpose is the current one; any other is not used before
"hsm-kp wrap-key rotate --to".

With --mechanism rsa-oaep it is an RSA key, for tokens that have no AES-GCM, such as a TPM,
and with it a key on P-256 which makes stamps.

Examples:
   hsm-kp wrap-key create
   hsm-kp wrap-key create --mechanism rsa-oaep
   hsm-kp wrap-key create --purpose wrap`,
		Flags: []cli.Flag{purposeFlag(), mechanismFlag("that of the current key, or aes-gcm"), jsonFlag},
		Action: func(c *cli.Context) error {
			return printWrappingKey(c, u, func(_ *env, inv *inventory.Inventory, m vault.Mechanism) (store.WrappingKey, error) {
				return inv.CreateWrappingKey(c.Context, m, false, time.Now())
			}, "created")
		},
	}
}

func wrapKeyRotateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "rotate",
		Usage: "make a new wrapping key the current one",
		Description: `New key packages are put under it from then on; what is under the one before stays there
until it ends, or until "hsm-kp wrap-key rewrap".

Examples:
   hsm-kp wrap-key rotate
   hsm-kp wrap-key rotate --to 5b0c7f0f11b2d64bd94eb9cd27f9a3e1
   hsm-kp wrap-key rotate && hsm-kp wrap-key rewrap && hsm-kp wrap-key destroy OLD`,
		Flags: []cli.Flag{
			purposeFlag(),
			mechanismFlag("that of the current key"),
			&cli.StringFlag{Name: "to", Usage: "to the key with this `ID`, or its first digits, made before, instead of a new one"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			return printWrappingKey(c, u, func(e *env, inv *inventory.Inventory, m vault.Mechanism) (store.WrappingKey, error) {
				if !c.IsSet("to") {
					return inv.RotateWrappingKey(c.Context, m, nil, time.Now())
				}
				k, err := e.findWrappingKey(c.Context, c.String("to"))
				if err != nil {
					return k, err
				}
				if p := store.Purpose(c.String("purpose")); c.IsSet("purpose") && k.Purpose != p {
					return k, usagef("wrap-key rotate: --purpose %s, and the key %x is one to %s", p, k.ID, k.Purpose)
				}
				return inv.RotateWrappingKey(c.Context, m, k.ID, time.Now())
			}, "current is")
		},
	}
}

// printWrappingKey runs f, which makes or chooses a wrapping key, and prints the key.
func printWrappingKey(c *cli.Context, u *ui, f func(*env, *inventory.Inventory, vault.Mechanism) (store.WrappingKey, error), did string) error {
	if err := wantArgs(c); err != nil {
		return err
	}
	if c.IsSet("to") && c.String("to") == "" {
		return usagef("wrap-key rotate: --to names no key")
	}
	if c.IsSet("to") && c.IsSet("mechanism") {
		return usagef("wrap-key rotate: --mechanism is for a new key, and --to names one")
	}
	p, err := purposeOf(c)
	if err != nil {
		return err
	}
	m, err := mechanismOf(c, p)
	if err != nil {
		return err
	}
	e, err := openEnv(c, u)
	if err != nil {
		return err
	}
	defer e.close()
	inv, err := e.Inventory(c.Context)
	if err == nil && m == "" {
		m, err = inv.NextMechanism(c.Context, p)
	}
	if err != nil {
		return err
	}
	key, err := f(e, inv, m)
	if err != nil {
		return adviseMechanism(err)
	}
	if c.Bool("json") {
		return u.json(wrappingKeyOf(&key))
	}
	u.printf("%s wrapping key %x, %s, in token %q\n", did, key.ID, whatFor(&key), e.token.Info().Label)
	return nil
}

// adviseMechanism says what to do of a token that refuses a mechanism.
func adviseMechanism(err error) error {
	const hint = "a token without AES-GCM seals by RSA-OAEP: --mechanism rsa-oaep"
	return advise(advise(err, token.CKR_MECHANISM_INVALID, hint), token.CKR_FUNCTION_NOT_SUPPORTED, hint)
}

// findWrappingKey returns the one wrapping key whose id begins so.
func (e *env) findWrappingKey(ctx context.Context, prefix string) (store.WrappingKey, error) {
	keys, err := e.store.WrappingKeys(ctx)
	if err != nil {
		return store.WrappingKey{}, err
	}
	var found []store.WrappingKey
	for _, k := range keys {
		if strings.HasPrefix(hex.EncodeToString(k.ID), strings.ToLower(prefix)) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		return store.WrappingKey{}, fmt.Errorf("wrapping key %s: %w", prefix, errNoSuchWrappingKey)
	case len(found) > 1:
		return store.WrappingKey{}, fmt.Errorf("wrapping key %s: %w", prefix, errAmbiguousWrappingKey)
	}
	return found[0], nil
}

func wrapKeyRewrapCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "rewrap",
		Usage: "put what is under old wrapping keys under the current one",
		Description: `Private keys that may still be used are unsealed and sealed again, or unwrapped and
wrapped again within the token, and stamps of identities are made anew. It may be interrupted
and run again at any time, and beside everything else; what was done is done.

Examples:
   hsm-kp wrap-key rewrap
   hsm-kp wrap-key rewrap --from 5b0c7f0f`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "only what is under the key with this `ID`, or its first digits", DefaultText: "all that are not current"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.IsSet("from") && c.String("from") == "" {
				return usagef("wrap-key rewrap: --from names no key")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.rewrap(c)
		},
	}
}

// rewrappedJSON is what `wrap-key rewrap --json` prints for each key.
type rewrappedJSON struct {
	From        string `json:"from"`
	KeyPackages uint64 `json:"key_packages"`
	Identities  uint64 `json:"identities"`
	Left        uint64 `json:"left"` // do not unseal
}

func (e *env) rewrap(c *cli.Context) error {
	keys, err := e.keysToRewrap(c)
	if err != nil {
		return err
	}
	inv, err := e.Inventory(c.Context)
	if err != nil {
		return err
	}
	if err := e.Tidy(c.Context); err != nil {
		return err
	}
	var faults []error // of private keys that do not unseal: all the others are moved
	for _, k := range keys {
		done, err := e.rewrapFrom(c.Context, inv, &k)
		if err != nil && done.Left == 0 {
			return err
		}
		faults = append(faults, err)
		if err := e.printRewrapped(&k, done, c.Bool("json")); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

func (e *env) rewrapFrom(ctx context.Context, inv *inventory.Inventory, k *store.WrappingKey) (inventory.Rewrapped, error) {
	d, err := e.store.Dependents(ctx, k.ID)
	if err != nil {
		return inventory.Rewrapped{}, err
	}
	done, err := inv.Rewrap(ctx, k.ID, time.Now(), func(r inventory.Rewrapped) {
		e.ui.progressf("%d of %s under %.16x", r.KeyPackages, operator.Plural(d.KeyPackages, "key package"), k.ID)
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %s put under the current wrapping key: %w", operator.ErrPartial, operator.Plural(done.KeyPackages, "key package"), context.Cause(ctx))
	}
	return done, err
}

func (e *env) printRewrapped(k *store.WrappingKey, r inventory.Rewrapped, asJSON bool) error {
	if asJSON {
		return e.ui.jsonLine(rewrappedJSON{hex.EncodeToString(k.ID), r.KeyPackages, r.Identities, r.Left})
	}
	left := ""
	if r.Left > 0 {
		left = "; " + operator.Plural(r.Left, "key package") + " left as before"
	}
	e.ui.printf("from %x: %s, stamps of %s%s\n", k.ID, operator.Plural(r.KeyPackages, "key package"), operator.PluralOf(r.Identities, "identity", "identities"), left)
	return nil
}

// keysToRewrap are the wrapping keys that the command line names, or all that have
// been used and are not current.
func (e *env) keysToRewrap(c *cli.Context) ([]store.WrappingKey, error) {
	if from := c.String("from"); from != "" {
		k, err := e.findWrappingKey(c.Context, from)
		return []store.WrappingKey{k}, err
	}
	keys, err := e.store.WrappingKeys(c.Context)
	return slices.DeleteFunc(keys, func(k store.WrappingKey) bool { return k.Current || k.Condemned }), err
}

func wrapKeyDestroyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "destroy",
		Usage:     "destroy a wrapping key in the token, and with it all that was ever under it",
		ArgsUsage: "ID",
		Description: `What was under the key opens no more: neither here nor in any copy of the store. It is
refused for a current key, and while private keys are under it that may still be used;
"hsm-kp wrap-key rewrap" puts them under another. With --shred these are erased, and no others:
from the first moment on nothing opens with them, then the key is destroyed, and then they are
erased from the store, batch by batch beside everything else. That may be interrupted, and run
again; "hsm-kp sweep" finishes it too. It cannot be undone.

Examples:
   hsm-kp wrap-key destroy 5b0c7f0f
   hsm-kp wrap-key destroy --shred 5b0c7f0f`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "shred", Usage: "erase the private keys that are under it"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "ID"); err != nil {
				return err
			}
			if c.Args().First() == "" {
				return usagef("wrap-key destroy: ID is empty")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.destroyWrappingKey(c)
		},
	}
}

// destroyedJSON is what `wrap-key destroy --json` prints.
type destroyedJSON struct {
	wrappingKeyJSON
	Shredded uint64 `json:"key_packages_erased"`
}

func (e *env) destroyWrappingKey(c *cli.Context) error {
	k, err := e.findWrappingKey(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	inv, err := e.Inventory(c.Context)
	if err != nil {
		return err
	}
	shredded, err := inv.DestroyWrappingKey(c.Context, k.ID, c.Bool("shred"), time.Now(), e.BacklogProgress(c.Context))
	if errors.Is(err, inventory.ErrInterrupted) {
		return e.shredInterrupted(c.Context, &k, err)
	}
	if err != nil {
		err = advise(err, store.ErrState, "`hsm-kp wrap-key rotate` makes another key the current one")
		return advise(err, store.ErrInUse, "`hsm-kp wrap-key rewrap` puts them under the current wrapping key; --shred erases them")
	}
	if k, err = e.findWrappingKey(c.Context, hex.EncodeToString(k.ID)); err != nil {
		return err
	}
	if c.Bool("json") {
		return e.ui.json(destroyedJSON{wrappingKeyOf(&k), shredded})
	}
	also := ""
	if shredded > 0 {
		also = ", and with it the private keys of " + operator.Plural(shredded, "key package")
	}
	e.ui.printf("destroyed wrapping key %x in token %q%s\n", k.ID, e.token.Info().Label, also)
	return nil
}

// shredInterrupted says how far the erasing of what was under a wrapping key is.
func (e *env) shredInterrupted(ctx context.Context, k *store.WrappingKey, err error) error {
	backlogs, fault := e.store.Backlogs(context.WithoutCancel(ctx))
	for _, b := range backlogs {
		if bytes.Equal(b.WrappingKeyID, k.ID) {
			return e.BacklogError(ctx, b, err)
		}
	}
	return errors.Join(err, fault)
}

// errNoSuchWrappingKey reports an id that no wrapping key begins with.
var errNoSuchWrappingKey = fmt.Errorf("there is no such wrapping key: %w", store.ErrNotFound)

// errAmbiguousWrappingKey reports the first digits of several wrapping keys.
var errAmbiguousWrappingKey = errors.New("more than one wrapping key begins so")

var custodyFlag = &cli.StringFlag{Name: "custody", Usage: "keep the private keys `WHERE`: wrapped or token", DefaultText: "the config's"}

// chosenCustody is the custody that the command line asks for; empty: it does not.
func chosenCustody(c *cli.Context) (string, error) {
	custody := c.String("custody")
	if c.IsSet("custody") && custody != vault.CustodyWrapped && custody != vault.CustodyToken {
		return "", usagef("%s: --custody %q is neither wrapped nor token", c.Command.HelpName, custody)
	}
	return custody, nil
}

// custodyOf is the custody that the command line asks for, or the config's.
func custodyOf(c *cli.Context, cfg *config.Config, name string) (string, error) {
	custody := cfg.CustodyOf(name)
	if c.IsSet("custody") {
		custody = c.String("custody")
	}
	if custody != vault.CustodyWrapped && custody != vault.CustodyToken {
		return "", usagef("%s: --custody %q is neither wrapped nor token", c.Command.HelpName, custody)
	}
	return custody, nil
}
