package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func exportCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Category:  categoryKeep,
		Usage:     "write the public parts of stored key packages",
		ArgsUsage: "REF...",
		Description: `Writes each as an MLSMessage to DIR/REF.mls and records it as published. It is
not written a second time unless --again is given. If two exports of the same
key package run at once, one succeeds. --pending writes those that an interrupted
run was writing; use it while no other run is writing.

Examples:
   hsm-kp export 3f9a61c2 --out spool/
   hsm-kp list --refs --state available --limit 50 | xargs -r hsm-kp export --out spool/
   hsm-kp export --pending --out spool/`,
		Flags: []cli.Flag{
			outFlag,
			&cli.BoolFlag{Name: "again", Usage: "also write those that were handed out before"},
			&cli.BoolFlag{Name: "pending", Usage: "write all that are pending, instead of REFs"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if !c.Bool("pending") {
				if err := wantSomeArgs(c, "REF"); err != nil {
					return err
				}
			} else if c.NArg() > 0 {
				return usagef("export: --pending takes no REF")
			}
			if c.String("out") == "" {
				return usagef("export: --out DIR is missing")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			r := operator.ExportRequest{Pending: c.Bool("pending"), Again: c.Bool("again"), Folder: c.String("out")}
			if r.Refs, err = e.Resolve(c.Context, c.Args().Slice()); err != nil {
				return err
			}
			exported, err := e.Export(c.Context, r)
			if err != nil {
				return advise(err, store.ErrState, "`hsm-kp list` shows the states; `hsm-kp export --again` writes what was handed out before")
			}
			return u.printExported(exported, c.Bool("json"))
		},
	}
}

// exportedJSON is a line of export --json.
type exportedJSON struct {
	Ref  string `json:"key_package_ref"`
	File string `json:"file"`
}

func (u *ui) printExported(exported []operator.Exported, asJSON bool) error {
	for _, e := range exported {
		if !asJSON {
			u.printf("%s\n", e.File)
			continue
		}
		if err := u.jsonLine(exportedJSON{e.Ref.String(), e.File}); err != nil {
			return err
		}
	}
	return nil
}
