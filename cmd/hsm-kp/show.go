package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func showCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Category:  categoryKeep,
		Usage:     "show one stored key package and its record",
		ArgsUsage: "REF",
		Description: `REF is a KeyPackageRef or its first digits, at least four.

Examples:
   hsm-kp show 3f9a61c2
   hsm-kp show --json 3f9a61c2 | jq .key_package.leaf_node.lifetime`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			return e.show(c.Context, c.Args().First(), c.Bool("json"))
		}, "REF"),
	}
}

// shownJSON is the JSON form of show.
type shownJSON struct {
	recordJSON
	KeyPackage *keypackage.KeyPackage `json:"key_package"`
}

func (e *env) show(ctx context.Context, prefix string, asJSON bool) error {
	record, err := e.Find(ctx, prefix)
	if err != nil {
		return err
	}
	kp, err := inventory.Public(&record)
	if err != nil {
		return err
	}
	if asJSON {
		return e.ui.json(shownJSON{recordOf(&record), kp})
	}
	e.ui.printf("identity         %s\n", record.Identity)
	e.ui.printf("state            %s\n", record.State)
	e.ui.printf("created          %s\n", record.CreatedAt.UTC().Format(time.RFC3339))
	if !record.PublishedAt.IsZero() {
		e.ui.printf("published        %s\n", record.PublishedAt.UTC().Format(time.RFC3339))
	}
	if record.Directory != "" {
		e.ui.printf("directory        %s\n", record.Directory)
	}
	switch {
	case record.State == store.Reserved:
		e.ui.printf("reserved until   %s, for the Welcome %x\n", record.ReservedUntil.UTC().Format(time.RFC3339), record.WelcomeDigest)
	case record.State == store.Consumed:
		e.ui.printf("consumed         %s, by the Welcome %x\n", record.ConsumedAt.UTC().Format(time.RFC3339), record.WelcomeDigest)
	case record.State == store.Retired:
		e.ui.printf("retired until    %s\n", record.RetiredUntil.UTC().Format(time.RFC3339))
	case record.State == store.Erased && !record.ErasedAt.IsZero():
		e.ui.printf("erased           %s\n", record.ErasedAt.UTC().Format(time.RFC3339))
	case record.Opened > 0:
		e.ui.printf("opened           by %s, the last being %x\n", operator.Plural(record.Opened, "Welcome"), record.WelcomeDigest)
	}
	if len(record.Leaf) > 0 {
		e.ui.printf("leaf key         kept until \"hsm-kp welcome confirm --leaf\"\n")
	}
	e.ui.printf("custody          %s, wrapping key %x\n", record.Custody, record.WrappingKeyID)
	if len(record.ReleaseDigest) > 0 {
		e.ui.printf("release key      SHA-256 %x\n", record.ReleaseDigest)
		e.ui.printf("private keys     %s\n", released(&record))
	}
	e.ui.printf("key package\n")
	printKeyPackage(e.ui, kp)
	return nil
}

// released returns where the private keys of custody release are.
func released(r *store.KeyPackage) string {
	switch {
	case !r.ConfirmedAt.IsZero():
		return "at the device, which confirmed at " + r.ConfirmedAt.UTC().Format(time.RFC3339)
	case !r.Unconfirmed() && r.HandedOverAt.IsZero():
		return "erased, and never handed over"
	case !r.Unconfirmed():
		return "erased; handed over at " + r.HandedOverAt.UTC().Format(time.RFC3339) + ", and not confirmed"
	case r.HandedOverAt.IsZero():
		return "here, not handed over yet"
	}
	return "here until the device confirms; handed over at " + r.HandedOverAt.UTC().Format(time.RFC3339)
}
