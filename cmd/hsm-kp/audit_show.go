package main

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

// entryJSON is the JSON form of an entry.
type entryJSON struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Actor    string    `json:"actor"`
	Act      audit.Act `json:"act"`
	Identity string    `json:"identity,omitempty"`
	Ref      string    `json:"key_package_ref,omitempty"`
	KeyID    string    `json:"key_id,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Hash     string    `json:"hash"`
}

func auditShowCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show the trail, or what happened to one key package",
		ArgsUsage: "[REF]",
		Description: `Prints one entry a line, the oldest first: when, who, what was done, and to which key package
and key. Every act on a key has one, added in the transaction that records the act. The entries
of one key package are found by an index, which no hash covers: "hsm-kp audit verify" finds
entries that were hidden from it.

--act shows only the entries with that act, such as refused or unwrapped. If there is no such act,
the error lists all acts. --limit counts the entries that are shown.

Examples:
   hsm-kp audit show 3f9a61c2
   hsm-kp audit show --from 1000 --limit 50
   hsm-kp audit show --act refused --act unwrapped
   hsm-kp audit show --act claimed --json | jq -r .actor`,
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "from", Usage: "begin with the entry of number `N`"},
			&cli.Uint64Flag{Name: "limit", Usage: "at most `N`", DefaultText: "all"},
			&cli.StringSliceFlag{Name: "act", Usage: "only entries with this `ACT`; may be repeated", DefaultText: "all"},
			jsonFlag,
		},
		BashComplete: completeValues("--act", actNames()...),
		Action: func(c *cli.Context) error {
			switch {
			case c.NArg() > 1:
				return usagef("audit show: give at most one REF")
			case c.NArg() == 1 && c.Args().First() == "":
				return usagef("audit show: REF is empty")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			r := operator.TrailRequest{KeyPackage: c.Args().First(), From: c.Uint64("from"), Limit: c.Uint64("limit")}
			for _, act := range c.StringSlice("act") {
				r.Acts = append(r.Acts, audit.Act(act))
			}
			first := true
			r.Each = func(entry operator.TrailEntry) error {
				defer func() { first = false }()
				return u.printEntry(&entry, first, c.Bool("json"))
			}
			return e.Trail(c.Context, r)
		},
	}
}

// actNames returns the names of all acts.
func actNames() []string {
	var names []string
	for _, act := range audit.Acts {
		names = append(names, string(act))
	}
	return names
}

// printEntry prints an entry, with a header before the first one.
func (u *ui) printEntry(entry *operator.TrailEntry, first, asJSON bool) error {
	if asJSON {
		return u.jsonLine(entryJSON{
			entry.Sequence, entry.Time, entry.Actor, entry.Act, entry.Identity,
			hex.EncodeToString(entry.Ref), hex.EncodeToString(entry.KeyID), entry.Detail, entry.Hash.String(),
		})
	}
	const row = "%-8v  %-20s  %-16s  %-12s  %-16s  %-16s  %s\n"
	if first {
		u.printf(row, "NUMBER", "TIME", "ACTOR", "ACT", "KEY PACKAGE", "KEY", "IDENTITY AND DETAIL")
	}
	detail := printable(entry.Identity)
	if entry.Detail != "" {
		detail = detail + map[bool]string{true: ", "}[detail != ""] + printable(entry.Detail)
	}
	u.printf(row, entry.Sequence, entry.Time.Format(time.RFC3339), printable(entry.Actor), printable(string(entry.Act)),
		fmt.Sprintf("%.8x", entry.Ref), fmt.Sprintf("%.8x", entry.KeyID), detail)
	return nil
}
