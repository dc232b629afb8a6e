package main

import (
	"encoding/hex"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// errUnwrapRefused reports that the config does not let private keys out.
var errUnwrapRefused = errors.New("the config does not allow private keys to leave: unwrap.allow is false")

func unwrapCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "unwrap",
		Category:  categoryKeep,
		Usage:     "print the HPKE private keys of a key package, where the config allows it",
		ArgsUsage: "REF",
		Description: `Prints init_private_key and encryption_private_key in hexadecimal, for handing
to an MLS library. Refused unless the config says "unwrap: {allow: true}":
whoever reads the output can open the Welcome that used the key package.

Examples:
   hsm-kp unwrap 3f9a61c2
   hsm-kp unwrap --json 3f9a61c2 | my-mls-client import`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			if !e.config.Unwrap.Allow {
				return e.refuseUnwrap(c)
			}
			return e.unwrap(c)
		}, "REF"),
	}
}

// refuseUnwrap puts into the trail what was asked for and is not allowed.
func (e *env) refuseUnwrap(c *cli.Context) error {
	record, err := e.Records().Find(c.Context, c.Args().First())
	if err != nil {
		return errUnwrapRefused // of nothing that there is
	}
	return errors.Join(errUnwrapRefused, e.store.Record(c.Context, audit.Entry{
		Time: time.Now(), Act: audit.Refused, Identity: record.Identity, Ref: record.Ref, KeyID: record.WrappingKeyID, Detail: "unwrap: not allowed by the config",
	}))
}

// unwrappedJSON is the JSON form of unwrap.
type unwrappedJSON struct {
	Ref               string `json:"key_package_ref"`
	Suite             string `json:"cipher_suite"`
	InitKey           string `json:"init_private_key"`
	EncryptionKey     string `json:"encryption_private_key"`
	EncodedKeyPackage string `json:"encoded_key_package"`
}

func (e *env) unwrap(c *cli.Context) error {
	record, err := e.Records().Find(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	inv, err := e.Inventory(c.Context)
	if err != nil {
		return err
	}
	keys, err := inv.PrivateKeys(c.Context, record.Ref, time.Now())
	if err != nil {
		return err
	}
	defer keys.Clear()
	initKey, encryptionKey := keys.Init.Bytes(), keys.Encryption.Bytes()
	defer clear(initKey)
	defer clear(encryptionKey)
	if c.Bool("json") {
		return e.ui.json(unwrappedJSON{
			Ref:               hex.EncodeToString(record.Ref),
			Suite:             recordOf(&record).Suite,
			InitKey:           hex.EncodeToString(initKey),
			EncryptionKey:     hex.EncodeToString(encryptionKey),
			EncodedKeyPackage: hex.EncodeToString(record.Public),
		})
	}
	e.ui.printf("key_package_ref         %x\n", record.Ref)
	e.ui.printf("cipher_suite            %s\n", recordOf(&record).Suite)
	e.ui.printf("init_private_key        %x\n", initKey)
	e.ui.printf("encryption_private_key  %x\n", encryptionKey)
	return nil
}
