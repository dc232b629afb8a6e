package main

import "github.com/urfave/cli/v2"

func wrapKeyCreateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "create",
		Usage: "make a wrapping key in the token, for a later rotation",
		Description: `The key is an AES-256 key that can never leave the token. It is tried before it is
recorded. The first key of its purpose becomes the current one; a later key is not used until
"hsm-kp wrap-key rotate --to" names it.

With --mechanism rsa-oaep it is an RSA key, for tokens that have no AES-GCM, such as a TPM,
together with a key on P-256 that makes stamps.

Examples:
   hsm-kp wrap-key create
   hsm-kp wrap-key create --mechanism rsa-oaep
   hsm-kp wrap-key create --purpose wrap`,
		Flags: []cli.Flag{purposeFlag(), mechanismFlag("that of the current key, or aes-gcm"), jsonFlag},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			r, err := newWrappingKey(c.Command.HelpName, c.String("purpose"), c.String("mechanism"), c.IsSet("mechanism"))
			if err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			key, err := e.CreateWrappingKey(c.Context, r)
			if err != nil {
				return adviseMechanism(err)
			}
			return e.printWrappingKey("created", &key, c.Bool("json"))
		},
	}
}
