package main

import (
	"encoding/hex"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

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
		Usage:    "the keys in the token that protect private keys: list, rotate, destroy",
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

// purposeFlag selects one of the two kinds of wrapping keys.
func purposeFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "purpose", Usage: "`PURPOSE` of the key: seal, for custody wrapped, or wrap, for custody token", Value: string(store.Seal)}
}

// mechanismFlag selects the mechanism of a new wrapping key that seals.
func mechanismFlag(otherwise string) *cli.StringFlag {
	return &cli.StringFlag{Name: "mechanism", Usage: "`MECHANISM` of a new key to seal: aes-gcm, or rsa-oaep for tokens without AES-GCM", DefaultText: otherwise}
}

// newWrappingKey reads --purpose and, if it is given, --mechanism.
func newWrappingKey(command, purpose, mechanism string, given bool) (operator.NewWrappingKey, error) {
	k := operator.NewWrappingKey{Purpose: store.Purpose(purpose), Mechanism: vault.Mechanism(mechanism)}
	switch {
	case !slices.Contains(store.Purposes, k.Purpose):
		return k, usagef("%s: --purpose %q is neither seal nor wrap", command, purpose)
	case !given:
		return k, nil
	case k.Mechanism != vault.AESGCM && k.Mechanism != vault.RSAOAEP:
		return k, usagef("%s: --mechanism %q is neither aes-gcm nor rsa-oaep", command, mechanism)
	case k.Purpose != store.Seal:
		return k, usagef("%s: --mechanism is for keys to seal, not to %s", command, purpose)
	}
	return k, nil
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

// mechanismName returns the mechanism that the stamp of a wrapping key names.
func mechanismName(k *store.WrappingKey) string {
	m, err := inventory.MechanismOf(k)
	if err != nil {
		return "unknown"
	}
	return string(m)
}

// whatFor returns the purpose of a wrapping key, and its mechanism if it is not the usual one.
func whatFor(k *store.WrappingKey) string {
	if m := mechanismName(k); m == string(vault.RSAOAEP) {
		return "to " + string(k.Purpose) + " by " + m
	}
	return "to " + string(k.Purpose)
}

// printWrappingKey prints a key that was made or selected, and what was done with it.
func (e *env) printWrappingKey(did string, key *store.WrappingKey, asJSON bool) error {
	if asJSON {
		return e.ui.json(wrappingKeyOf(key))
	}
	e.ui.printf("%s wrapping key %x, %s, in token %q\n", did, key.ID, whatFor(key), e.token.Info().Label)
	return nil
}

// adviseMechanism says what to do if a token refuses a mechanism.
func adviseMechanism(err error) error {
	const hint = "a token without AES-GCM seals by RSA-OAEP: --mechanism rsa-oaep"
	return advise(advise(err, token.CKR_MECHANISM_INVALID, hint), token.CKR_FUNCTION_NOT_SUPPORTED, hint)
}
