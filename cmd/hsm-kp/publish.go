package main

import (
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/policy"
)

var directoryFlag = &cli.StringFlag{Name: "directory", Aliases: []string{"d"}, Usage: "publish in the directory `NAME` of the config", DefaultText: "the config's"}

func publishCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "publish",
		Category: categoryKeep,
		Usage:    "publish available key packages in a directory",
		Description: `Sends available key packages to a directory of the config: a delivery service, or
a folder. While a key package is being sent, it is pending and is not handed out
otherwise; it becomes published when the directory has acknowledged it.

If a run was killed, or could not send everything, the next run first sends the rest,
to the same directory and with the same bytes. Key packages of last resort are
published too, and --count does not count them; they remain of last resort. Those
whose private keys are for a device (custody release) are held back until it has
confirmed them.

Several runs may publish at once, on one machine or many: no two send the same key
package. The exit status is 1 if a directory did not accept all of them.

Examples:
   hsm-kp publish
   hsm-kp publish --identity alice --identity bob --count 100
   hsm-kp publish --directory main --suite 2 --json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "identity", Aliases: []string{"i"}, Usage: "publish those of `NAME`; may be repeated", DefaultText: "all identities"},
			directoryFlag,
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "at most `N` of each identity", DefaultText: "all"},
			&cli.StringFlag{Name: "suite", Usage: "publish those of identities with cipher suite `SUITE`, a name or a number", DefaultText: "any"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			if c.IsSet("count") && c.Int("count") < 1 {
				return usagef("publish: --count must be at least 1")
			}
			choice, err := e.choice(c.StringSlice("identity"), c.String("suite"))
			if err != nil {
				return err
			}
			r := operator.PublishRequest{Choice: choice, Directory: c.String("directory"), Count: c.Int("count")}
			if c.Bool("json") {
				r.Each = u.printPublished
			}
			done, err := e.Publish(c.Context, r)
			if !c.Bool("json") && (done.Published > 0 || err == nil) {
				u.printf("published %s in %v\n", operator.Plural(done.Published, "key package"), done.Took.Round(time.Millisecond))
			}
			return errors.Join(err, u.flush())
		}),
	}
}

// choice selects identities by name, or all, and of these only those with the suite if one is named.
func (e *env) choice(identities []string, suite string) (operator.Choice, error) {
	choice := operator.Choice{Identities: identities}
	if suite == "" {
		return choice, nil
	}
	var err error
	choice.Suite, err = policy.Suite(e.config, suite)
	return choice, err
}

// publishedJSON is a line of publish --json.
type publishedJSON struct {
	Ref        string `json:"key_package_ref"`
	Identity   string `json:"identity"`
	Directory  string `json:"directory"`
	LastResort bool   `json:"last_resort"`
	Published  bool   `json:"published"`
	Error      string `json:"error,omitempty"`
}

func (u *ui) printPublished(p operator.Published) error {
	line := publishedJSON{Ref: p.Ref.String(), Identity: p.Identity, Directory: p.Directory, LastResort: p.LastResort, Published: p.Err == nil}
	if p.Err != nil {
		line.Error = p.Err.Error()
	}
	return u.jsonLine(line)
}
