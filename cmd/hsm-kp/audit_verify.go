package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func auditVerifyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check that no entry was changed, added or removed",
		ArgsUsage: "[CHECKPOINT...]",
		Description: `Computes the chain of hashes and the Merkle tree again from the first entry, checks that each
entry is found under the key package that it is about ("hsm-kp audit show REF"), and compares
the result with the checkpoints in the store and in the given files. Keep such files elsewhere:
an attacker who can write to the store can rewrite the whole trail, but cannot change a checkpoint
that is kept elsewhere. --key is the verifier key that you noted when it was made; without it,
the command trusts the store's own. It trusts a later key if the trail names it and a checkpoint
of a trusted key covers that entry, as "hsm-kp audit key --new" makes it; give any other with
--key. No token is needed.

The exit status is 1 if something is wrong; the first fault is reported.

Examples:
   hsm-kp audit verify
   hsm-kp audit verify --key "$(cat audit.vkey)" /mnt/worm/checkpoint-*.txt`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "key", Usage: "trust this verifier `KEY` only; may be repeated"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			r := operator.VerifyTrailRequest{Keys: c.StringSlice("key")}
			for _, name := range c.Args().Slice() {
				note, err := readInput(u, name, maxKeyPackageBytes)
				if err != nil {
					return err
				}
				r.Notes = append(r.Notes, operator.CheckpointNote{Name: name, Note: note})
			}
			result, err := e.VerifyTrail(c.Context, r)
			if c.Bool("json") && result != nil {
				return errors.Join(u.json(verifiedOf(result, err)), err)
			}
			if err != nil {
				return err
			}
			u.printVerified(result)
			return nil
		},
	}
}

// verifiedJSON is what `audit verify --json` prints.
type verifiedJSON struct {
	Entries     uint64 `json:"entries"`
	Checkpoints int    `json:"checkpoints"`
	Unattested  uint64 `json:"unattested"` // entries since the last checkpoint
	Backwards   uint64 `json:"clock_steps_back"`
	Head        string `json:"head"`
	Root        string `json:"root"`
	Fault       string `json:"fault,omitempty"`
}

func verifiedOf(r *audit.Result, fault error) verifiedJSON {
	out := verifiedJSON{r.Entries, r.Checkpoints, r.Unattested, r.Backwards, r.Head.String(), r.Root.String(), ""}
	if fault != nil {
		out.Fault = fault.Error()
	}
	return out
}

func (u *ui) printVerified(r *audit.Result) {
	attested := "and no checkpoint yet"
	if r.Checkpoints > 0 {
		attested = fmt.Sprintf("as %s; %s since the last",
			operator.PluralOf(uint64(r.Checkpoints), "checkpoint says", "checkpoints say"), operator.PluralOf(r.Unattested, "entry", "entries"))
	}
	u.printf("%s in order, %s\n", operator.PluralOf(r.Entries, "entry", "entries"), attested)
	u.printf("root  %v\n", r.Root)
	if r.Backwards > 0 {
		u.warnf("the clock was set back %s", operator.Plural(r.Backwards, "time"))
	}
}
