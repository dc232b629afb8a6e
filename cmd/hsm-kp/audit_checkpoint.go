package main

import "github.com/urfave/cli/v2"

func auditCheckpointCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "sign the current state of the trail with a key in the token",
		Description: `Verifies the trail against the earlier checkpoints, signs its size and its Merkle root
(C2SP signed note and checkpoint), keeps the checkpoint in the store and prints it. Keep a copy
in a place that cannot be changed: it shows whether an earlier entry was changed or removed. The
first checkpoint makes the key; note its verifier key, which "hsm-kp audit key" prints. "hsm-kp
audit key --new" makes another. Run the command on a schedule.

Examples:
   hsm-kp audit checkpoint >/mnt/worm/checkpoint-$(date +%F).txt
   hsm-kp audit checkpoint --json | jq .size`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			signed, err := e.Checkpoint(c.Context)
			if err != nil {
				return adviseAuditKey(err)
			}
			if c.Bool("json") {
				return u.json(checkpointJSON{signed.Origin, signed.Size, signed.Root.String(), string(signed.Note)})
			}
			u.printf("%s", signed.Note)
			return nil
		}),
	}
}

// checkpointJSON is what `audit checkpoint --json` prints.
type checkpointJSON struct {
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	Root   string `json:"root"`
	Note   string `json:"note"`
}
