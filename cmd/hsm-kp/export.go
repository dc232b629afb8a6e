package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func exportCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Category:  categoryKeep,
		Usage:     "write the public parts of stored key packages",
		ArgsUsage: "REF...",
		Description: `Writes each as an MLSMessage to DIR/REF.mls and records it as published: from
then on it has left hsm-kp's hands, and is not written a second time unless
--again says so. Of two exports of the same key package at once, one succeeds.
--pending writes those that a run was writing when it was cut short; run it when
no other run is writing.

Examples:
   hsm-kp export 3f9a61c2 --out spool/
   hsm-kp list --refs --state available --limit 50 | xargs -r hsm-kp export --out spool/
   hsm-kp export --pending --out spool/`,
		Flags: []cli.Flag{
			outFlag,
			&cli.BoolFlag{Name: "again", Usage: "write also those that were handed out before"},
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
			refs, from, err := e.toExport(c)
			if err != nil {
				return err
			}
			return e.export(c, refs, from)
		},
	}
}

// exportedJSON is a line of export --json.
type exportedJSON struct {
	Ref  string `json:"key_package_ref"`
	File string `json:"file"`
}

// toExport returns which key packages to write, and the states that they may be
// in.
func (e *env) toExport(c *cli.Context) ([][]byte, []store.State, error) {
	if c.Bool("pending") {
		var refs [][]byte
		for record, err := range e.store.KeyPackages(c.Context, store.Filter{State: store.Pending}) {
			if err != nil {
				return nil, nil, fmt.Errorf("list key packages: %w", err)
			}
			if record.Directory == "" { // what goes to a directory is for `hsm-kp publish`
				refs = append(refs, record.Ref)
			}
		}
		return refs, []store.State{store.Pending}, nil
	}
	refs, err := e.resolveAll(c)
	if c.Bool("again") {
		return refs, []store.State{store.Pending, store.Available, store.Published}, err
	}
	return refs, []store.State{store.Available}, err
}

// export writes key packages. They are pending while it does: whatever happens,
// nobody else hands them out.
func (e *env) export(c *cli.Context, refs [][]byte, from []store.State) error {
	out, err := directory.OpenSpool(c.String("out"))
	if err != nil {
		return err
	}
	for _, ref := range refs { // what cannot be written is not moved
		record, err := e.store.KeyPackage(c.Context, ref)
		if err == nil {
			_, err = inventory.Public(&record)
		}
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	if err := e.store.Move(c.Context, refs, from, store.Pending, time.Now()); err != nil {
		return advise(fmt.Errorf("export: %w", err), store.ErrState, "`hsm-kp list` shows the states; `hsm-kp export --again` writes what was handed out before")
	}
	files, err := e.writePending(context.WithoutCancel(c.Context), out, refs)
	if err != nil {
		e.ui.notef("%s pending: `hsm-kp export --pending --out %s` writes what is missing", operator.Plural(len(refs), "key package"), out.Path())
		return err
	}
	return e.printExported(c.Bool("json"), refs, files)
}

// writePending writes pending key packages and records them as published once
// they are on the disk. It returns the names of the files.
func (e *env) writePending(ctx context.Context, out *directory.Spool, refs [][]byte) ([]string, error) {
	records := make([]store.KeyPackage, len(refs))
	expired := 0
	for i, ref := range refs {
		var err error
		if records[i], err = e.store.KeyPackage(ctx, ref); err != nil {
			return nil, err
		}
		if records[i].NotAfter.Before(time.Now()) {
			expired++
		}
	}
	files, err := operator.WriteAll(out, records)
	if err != nil {
		return nil, err
	}
	if expired > 0 {
		e.ui.warnf("of %s, %d past their lifetime: every peer refuses those", operator.Plural(len(refs), "key package"), expired)
	}
	return files, e.store.Move(ctx, refs, []store.State{store.Pending}, store.Published, time.Now())
}

func (e *env) printExported(asJSON bool, refs [][]byte, files []string) error {
	for i, ref := range refs {
		if !asJSON {
			e.ui.printf("%s\n", files[i])
			continue
		}
		if err := e.ui.jsonLine(exportedJSON{keypackage.Ref(ref).String(), files[i]}); err != nil {
			return err
		}
	}
	return nil
}

// resolveAll turns all arguments into KeyPackageRefs, or tells all that is
// wrong with them.
func (e *env) resolveAll(c *cli.Context) ([][]byte, error) {
	var refs [][]byte
	var faults []error
	seen := make(map[string]bool)
	for _, arg := range c.Args().Slice() {
		ref, err := e.Records().Resolve(c.Context, arg)
		switch {
		case err != nil:
			faults = append(faults, err)
		case !seen[string(ref)]:
			seen[string(ref)] = true
			refs = append(refs, ref)
		}
	}
	return refs, errors.Join(faults...)
}
