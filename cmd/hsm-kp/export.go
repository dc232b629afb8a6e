package main

import (
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

func exportCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Category:  categoryKeep,
		Usage:     "write the public parts of stored key packages",
		ArgsUsage: "REF...",
		Description: `Writes each as an MLSMessage to DIR/<KeyPackageRef>.mls and records it as
published: from then on it has left hsm-kp's hands. A key package that is
published already may be written again.

Examples:
   hsm-kp export 3f9a61c2 --out spool/
   hsm-kp list --refs --state available | xargs hsm-kp export --out spool/`,
		Flags: []cli.Flag{outFlag, jsonFlag},
		Action: func(c *cli.Context) error {
			if err := wantSomeArgs(c, "REF"); err != nil {
				return err
			}
			if c.String("out") == "" {
				return usagef("export: --out DIR is missing")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.export(c)
		},
	}
}

// exportedJSON is a line of export --json.
type exportedJSON struct {
	Ref  string `json:"key_package_ref"`
	File string `json:"file"`
}

func (e *env) export(c *cli.Context) error {
	refs, err := e.resolveAll(c)
	if err != nil {
		return err
	}
	out, err := openOutFolder(c.String("out"))
	if err != nil {
		return err
	}
	// First the record, then the file: a crash between the two leaves a key
	// package to be written again, never one that could be handed out twice.
	if err := e.store.MarkPublished(c.Context, refs, time.Now()); err != nil {
		return err
	}
	for _, ref := range refs {
		record, err := e.store.KeyPackage(c.Context, ref)
		if err != nil {
			return err
		}
		file, err := out.write(&record)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			err = e.ui.jsonLine(exportedJSON{keypackage.Ref(ref).String(), file})
		} else {
			e.ui.printf("%s\n", file)
		}
		if err != nil {
			return err
		}
	}
	return out.sync()
}

// resolveAll turns all arguments into KeyPackageRefs, or tells all that is
// wrong with them.
func (e *env) resolveAll(c *cli.Context) ([][]byte, error) {
	var refs [][]byte
	var faults []error
	for _, arg := range c.Args().Slice() {
		ref, err := e.records().Resolve(c.Context, arg)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		refs = append(refs, ref)
	}
	return refs, errors.Join(faults...)
}
