package main

import (
	"encoding/hex"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func unwrapCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "unwrap",
		Category:  categoryKeep,
		Usage:     "print the HPKE private keys of a key package, if the config allows it",
		ArgsUsage: "REF",
		Description: `Prints init_private_key and encryption_private_key in hexadecimal, to be handed
to an MLS library. The command is refused unless the config has "unwrap: {allow: true}":
anyone who reads the output can open the Welcome that used the key package.

Examples:
   hsm-kp unwrap 3f9a61c2
   hsm-kp unwrap --json 3f9a61c2 | my-mls-client import`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			keys, err := e.Unwrap(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			defer keys.Clear()
			return u.printUnwrapped(keys, c.Bool("json"))
		}, "REF"),
	}
}

// unwrappedJSON is the JSON form of unwrap.
type unwrappedJSON struct {
	Ref               string `json:"key_package_ref"`
	Suite             string `json:"cipher_suite"`
	InitKey           string `json:"init_private_key"`
	EncryptionKey     string `json:"encryption_private_key"`
	EncodedKeyPackage string `json:"encoded_key_package"`
}

func (u *ui) printUnwrapped(k *operator.Unwrapped, asJSON bool) error {
	suite := ciphersuite.ID(k.Record.Suite).String()
	if asJSON {
		return u.json(unwrappedJSON{
			Ref:               hex.EncodeToString(k.Record.Ref),
			Suite:             suite,
			InitKey:           hex.EncodeToString(k.InitKey),
			EncryptionKey:     hex.EncodeToString(k.Encryption),
			EncodedKeyPackage: hex.EncodeToString(k.Record.Public),
		})
	}
	u.printf("key_package_ref         %x\n", k.Record.Ref)
	u.printf("cipher_suite            %s\n", suite)
	u.printf("init_private_key        %x\n", k.InitKey)
	u.printf("encryption_private_key  %x\n", k.Encryption)
	return nil
}
