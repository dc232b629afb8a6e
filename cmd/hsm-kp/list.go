package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func listCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "list",
		Category: categoryKeep,
		Usage:    "list stored key packages",
		Description: `Prints one key package a line, the oldest first. Other commands accept the first digits
of a KeyPackageRef, as they are shown here.

Examples:
   hsm-kp list --identity alice --state available
   hsm-kp list --count
   hsm-kp list --unconfirmed --json | jq -r .identity | sort -u
   hsm-kp list --refs --identity alice --state available | xargs -r hsm-kp export --out spool/`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "only those of `NAME`"},
			&cli.StringFlag{Name: "state", Usage: "only those in `STATE`: " + strings.Join(stateNames(), ", ")},
			&cli.BoolFlag{Name: "unconfirmed", Usage: "only those whose device has not confirmed that it has the private keys"},
			&cli.Uint64Flag{Name: "limit", Usage: "at most `N`", DefaultText: "all"},
			&cli.BoolFlag{Name: "refs", Usage: "print whole KeyPackageRefs and nothing else"},
			&cli.BoolFlag{Name: "count", Usage: "print how many there are in each state"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if s := c.String("state"); s != "" && !slices.Contains(stateNames(), s) {
				return usagef("list: --state %q is not one of %s", s, strings.Join(stateNames(), ", "))
			}
			if c.Bool("count") && c.Bool("unconfirmed") {
				return usagef("list: --count and --unconfirmed do not go together")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			if c.Bool("count") {
				return e.count(c.Context, c.String("identity"), c.Bool("json"))
			}
			filter := store.Filter{Identity: c.String("identity"), State: store.State(c.String("state")), Unconfirmed: c.Bool("unconfirmed")}
			show := u.printRow
			switch {
			case c.Bool("json"):
				show = func(record *store.KeyPackage, _ bool) error { return u.jsonLine(recordOf(record)) }
			case c.Bool("refs"):
				show = func(record *store.KeyPackage, _ bool) error { u.printf("%x\n", record.Ref); return nil }
			}
			n, err := e.list(c.Context, filter, c.Uint64("limit"), show)
			if err == nil && n == 0 && u.outTerm && !c.Bool("json") {
				u.notef("no key packages")
			}
			return err
		},
	}
}

func stateNames() []string {
	var names []string
	for _, s := range store.States {
		names = append(names, string(s))
	}
	return names
}

func (e *env) count(ctx context.Context, name string, asJSON bool) error {
	counts, err := e.Count(ctx, name)
	if err != nil {
		return err
	}
	if asJSON {
		return e.ui.json(counts)
	}
	for _, s := range stateNames() {
		e.ui.printf("%-10s %d\n", s, counts[store.State(s)])
	}
	return nil
}

// list shows the key packages that fit, at most limit unless it is 0, and returns how many it has
// shown.
func (e *env) list(ctx context.Context, f store.Filter, limit uint64, show func(record *store.KeyPackage, first bool) error) (n uint64, err error) {
	records, err := e.KeyPackages(ctx, f)
	if err != nil {
		return 0, err
	}
	for record, err := range records {
		if err != nil {
			return n, fmt.Errorf("list key packages: %w", err)
		}
		if limit > 0 && n == limit {
			break
		}
		if err := show(&record, n == 0); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// printRow prints a key package as a row, the first one below the names of the columns.
func (u *ui) printRow(record *store.KeyPackage, first bool) error {
	const row = "%-16s  %-9s  %-20s  %-11s  %s\n"
	if first {
		u.printf(row, "REF", "STATE", "NOT AFTER", "KIND", "IDENTITY")
	}
	kind := "single use"
	if record.LastResort {
		kind = "last resort"
	}
	u.printf(row, shortRef(record.Ref), record.State, record.NotAfter.UTC().Format(time.RFC3339), kind, record.Identity)
	return nil
}

// shortRef returns the first digits of a KeyPackageRef, enough for a person.
func shortRef(ref []byte) string { return keypackage.Ref(ref).String()[:16] }

// recordJSON is the JSON form of a stored key package.
type recordJSON struct {
	Ref           string    `json:"key_package_ref"`
	Identity      string    `json:"identity"`
	Suite         string    `json:"cipher_suite"`
	State         string    `json:"state"`
	LastResort    bool      `json:"last_resort"`
	Custody       string    `json:"custody"`
	WrappingKeyID string    `json:"wrapping_key_id,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	NotBefore     time.Time `json:"not_before"`
	NotAfter      time.Time `json:"not_after"`
	PublishedAt   string    `json:"published_at,omitempty"`
	Directory     string    `json:"directory,omitempty"` // where it is published, or on its way to
	ReservedUntil string    `json:"reserved_until,omitempty"`
	ConsumedAt    string    `json:"consumed_at,omitempty"`
	WelcomeDigest string    `json:"welcome_digest,omitempty"` // SHA-256 of the bare Welcome
	Opened        uint64    `json:"opened,omitempty"`         // of one of last resort: how often
	Version       uint64    `json:"identity_version"`
	LeafKept      bool      `json:"leaf_key_kept,omitempty"`
	ClaimedAt     string    `json:"claimed_at,omitempty"`
	RetiredUntil  string    `json:"retired_until,omitempty"`
	ErasedAt      string    `json:"erased_at,omitempty"`
	ReleaseDigest string    `json:"release_key_sha256,omitempty"` // of custody release, as the two below
	HandedOverAt  string    `json:"handed_over_at,omitempty"`
	ConfirmedAt   string    `json:"confirmed_at,omitempty"`
	Bytes         int       `json:"bytes"`
}

func recordOf(r *store.KeyPackage) recordJSON {
	out := recordJSON{
		Ref:           keypackage.Ref(r.Ref).String(),
		Identity:      r.Identity,
		Suite:         ciphersuite.ID(r.Suite).String(),
		State:         string(r.State),
		LastResort:    r.LastResort,
		Custody:       r.Custody,
		WrappingKeyID: fmt.Sprintf("%x", r.WrappingKeyID),
		CreatedAt:     r.CreatedAt.UTC(),
		NotBefore:     r.NotBefore.UTC(),
		NotAfter:      r.NotAfter.UTC(),
		WelcomeDigest: fmt.Sprintf("%x", r.WelcomeDigest),
		Opened:        r.Opened,
		Directory:     r.Directory,
		Version:       r.Version,
		LeafKept:      len(r.Leaf) > 0,
		Bytes:         len(r.Public),
		ReleaseDigest: fmt.Sprintf("%x", r.ReleaseDigest),
	}
	for to, at := range map[*string]time.Time{&out.PublishedAt: r.PublishedAt, &out.ReservedUntil: r.ReservedUntil, &out.ConsumedAt: r.ConsumedAt,
		&out.ClaimedAt: r.ClaimedAt, &out.RetiredUntil: r.RetiredUntil, &out.ErasedAt: r.ErasedAt,
		&out.HandedOverAt: r.HandedOverAt, &out.ConfirmedAt: r.ConfirmedAt} {
		if !at.IsZero() {
			*to = at.UTC().Format(time.RFC3339)
		}
	}
	return out
}
