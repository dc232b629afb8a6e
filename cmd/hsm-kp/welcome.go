package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

func welcomeCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "welcome",
		Category: categoryKeep,
		Usage:    "open a Welcome with its key package, once",
		Subcommands: []*cli.Command{
			welcomeOpenCommand(u),
			welcomeConfirmCommand(u),
			welcomeReleaseCommand(u),
			welcomeSampleCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("welcome: there is no %q; it has open, confirm, release and sample", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// errNotWelcome reports input that is not a Welcome in any of the supported
// forms.
var errNotWelcome = errors.New("not a Welcome")

// readWelcome reads a Welcome from the file called name, or from standard input
// if name is "-".
func readWelcome(u *ui, name string) (*keypackage.Welcome, error) {
	data, err := readInput(u, name, maxWelcomeBytes)
	if err != nil {
		return nil, err
	}
	w, err := decodeWelcome(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
}

// decodeWelcome decodes data that does not begin with a zero byte, and is not text, as raw: the
// number of an experimental cipher suite may begin with any byte.
func decodeWelcome(data []byte) (*keypackage.Welcome, error) {
	raw, _, err := decodeText(data)
	if err != nil {
		raw = data
	}
	w, err := keypackage.DecodeWelcome(raw)
	message, messageErr := keypackage.ParseMessage(raw)
	switch {
	case err != nil && messageErr == nil && message.WireFormat != keypackage.WireFormatWelcome:
		return nil, fmt.Errorf("%w: it is an MLSMessage that holds %v", errNotWelcome, message.WireFormat)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNotWelcome, err)
	}
	return w, nil
}
