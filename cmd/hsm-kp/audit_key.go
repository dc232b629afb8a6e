package main

import (
	"encoding/hex"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func auditKeyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "print the verifier keys of the checkpoints, or make a new key",
		Description: `The first "hsm-kp audit checkpoint" makes the first key. Note its verifier key elsewhere: an
auditor verifies with that note, and not with what the store says later.

--new makes a key that replaces it: use it if the key was lost or its token is about to be replaced.
The trail names the new key. If the old key is still there, it signs a last checkpoint over that entry,
which is printed. Keep it with the others: because of it, auditors who trust the old key trust the
new one. If the old key is lost, hand the new verifier key to all who verify.

Examples:
   hsm-kp audit key >audit.vkey
   hsm-kp audit key --new >/mnt/worm/checkpoint-$(date +%F)-last.txt`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "new", Usage: "make a key that replaces the last one"}, jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			if !c.Bool("new") {
				keys, err := e.AuditKeys(c.Context)
				return errors.Join(u.printAuditKeys(keys, c.Bool("json")), err)
			}
			note, err := e.NewAuditKey(c.Context)
			switch {
			case err != nil:
				return adviseAuditKey(err)
			case len(note) > 0 && c.Bool("json"):
				return u.json(handoverJSON{string(note)})
			}
			u.printf("%s", note)
			return nil
		}),
	}
}

// adviseAuditKey says what to do if another process seems to be making an audit key.
func adviseAuditKey(err error) error {
	return advise(err, inventory.ErrUnderWay, "if no other hsm-kp is running, `hsm-kp sweep --unfinished 0s` repairs what a crash left")
}

func (u *ui) printAuditKeys(keys []store.AuditKey, asJSON bool) error {
	for _, k := range keys {
		if !asJSON {
			u.printf("%s\n", k.VerifierKey)
			continue
		}
		if err := u.jsonLine(auditKeyJSON{k.VerifierKey, hex.EncodeToString(k.KeyID), k.TokenSerial, k.Origin, k.CreatedAt}); err != nil {
			return err
		}
	}
	return nil
}

// handoverJSON is what `audit key --new --json` prints.
type handoverJSON struct {
	Note string `json:"note"`
}

// auditKeyJSON is a line of `audit key --json`.
type auditKeyJSON struct {
	VerifierKey string    `json:"verifier_key"`
	KeyID       string    `json:"key_id"`
	TokenSerial string    `json:"token_serial"`
	Origin      string    `json:"origin"`
	CreatedAt   time.Time `json:"created_at"`
}
