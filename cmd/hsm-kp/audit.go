package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/user"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func auditCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "audit",
		Category: categoryLook,
		Usage:    "the trail of what was done with keys: show, verify, sign a checkpoint",
		Subcommands: []*cli.Command{
			auditShowCommand(u), auditVerifyCommand(u), auditCheckpointCommand(u), auditKeyCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("audit: there is no %q; it has show, verify, checkpoint and key", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// actor names who runs the command.
func actor() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "user:" + u.Username
	}
	return fmt.Sprintf("uid:%d", os.Getuid())
}

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
		Description: `An entry a line, the oldest first: when, who, what was done, and to which key package and
key. There is one for every act on a key, added in the transaction that records the act.

Examples:
   hsm-kp audit show 3f9a61c2
   hsm-kp audit show --from 1000 --limit 50
   hsm-kp audit show --json | jq 'select(.act == "refused")'`,
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "from", Usage: "begin with the entry of number `N`"},
			&cli.Uint64Flag{Name: "limit", Usage: "at most `N`", DefaultText: "all"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return usagef("audit show: at most one REF is taken")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			entries := e.store.Entries(c.Context, c.Uint64("from"))
			if c.NArg() == 1 {
				ref, err := e.records().Resolve(c.Context, c.Args().First())
				if err != nil {
					return err
				}
				entries = e.store.EntriesOf(c.Context, ref)
			}
			return e.showEntries(entries, c.Uint64("from"), c.Uint64("limit"), c.Bool("json"))
		},
	}
}

func (e *env) showEntries(entries iter.Seq2[audit.Stored, error], from, limit uint64, asJSON bool) error {
	n := uint64(0)
	for stored, err := range entries {
		if err != nil {
			return fmt.Errorf("read the audit trail: %w", err)
		}
		if limit > 0 && n == limit {
			break
		}
		entry, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			return fmt.Errorf("read the audit trail: %w: %w", audit.ErrTampered, err)
		}
		if entry.Sequence < from {
			continue // of a key package: all of it was asked for
		}
		if err := e.showEntry(&entry, stored.Hash, n == 0, asJSON); err != nil {
			return err
		}
		n++
	}
	return nil
}

func (e *env) showEntry(entry *audit.Entry, hash audit.Hash, first, asJSON bool) error {
	if asJSON {
		return e.ui.jsonLine(entryJSON{
			entry.Sequence, entry.Time, entry.Actor, entry.Act, entry.Identity,
			hex.EncodeToString(entry.Ref), hex.EncodeToString(entry.KeyID), entry.Detail, hash.String(),
		})
	}
	const row = "%-8v  %-20s  %-16s  %-12s  %-16s  %-16s  %s\n"
	if first {
		e.ui.printf(row, "NUMBER", "TIME", "ACTOR", "ACT", "KEY PACKAGE", "KEY", "IDENTITY AND DETAIL")
	}
	detail := printable(entry.Identity)
	if entry.Detail != "" {
		detail = detail + map[bool]string{true: ", "}[detail != ""] + printable(entry.Detail)
	}
	e.ui.printf(row, entry.Sequence, entry.Time.Format(time.RFC3339), printable(entry.Actor), printable(string(entry.Act)),
		fmt.Sprintf("%.8x", entry.Ref), fmt.Sprintf("%.8x", entry.KeyID), detail)
	return nil
}

func auditVerifyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check that no entry was changed, added or removed",
		ArgsUsage: "[CHECKPOINT...]",
		Description: `Computes the chain of hashes and the Merkle tree anew from the first entry, and compares
them with the checkpoints that the store has and with those in the files given: keep these
elsewhere, because who can write to the store can write all of it anew, but for what a
checkpoint elsewhere says. --key is the verifier key that you noted when it was made; without
it, the store's own is believed. No token is needed.

The exit status is 1 where something is wrong: the first such thing is told.

Examples:
   hsm-kp audit verify
   hsm-kp audit verify --key "$(cat audit.vkey)" /mnt/worm/checkpoint-*.txt`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "key", Usage: "believe this verifier `KEY` only; may be repeated"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.verifyTrail(c)
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

func (e *env) verifyTrail(c *cli.Context) error {
	checkpoints, err := e.openCheckpoints(c)
	if err != nil {
		return err
	}
	result, err := audit.Verify(e.store.Entries(c.Context, 0), checkpoints)
	if c.Bool("json") {
		out := verifiedJSON{result.Entries, result.Checkpoints, result.Unattested, result.Backwards, result.Head.String(), result.Root.String(), ""}
		if err != nil {
			out.Fault = err.Error()
		}
		return errors.Join(e.ui.json(out), err)
	}
	if err != nil {
		return err
	}
	attested := "and no checkpoint yet"
	if result.Checkpoints > 0 {
		attested = fmt.Sprintf("as %s; %s since the last",
			pluralOf(uint64(result.Checkpoints), "checkpoint says", "checkpoints say"), pluralOf(result.Unattested, "entry", "entries"))
	}
	e.ui.printf("%s in order, %s\n", pluralOf(result.Entries, "entry", "entries"), attested)
	e.ui.printf("root  %v\n", result.Root)
	if result.Backwards > 0 {
		e.ui.warnf("the clock was set back %s", plural(result.Backwards, "time"))
	}
	return nil
}

// errForeignCheckpoint reports a checkpoint that no known key signed.
var errForeignCheckpoint = errors.New("no key that is believed signed it")

// openCheckpoints returns the checkpoints of the store and of the files that the command
// line names, once their signatures are verified.
func (e *env) openCheckpoints(c *cli.Context) ([]audit.Checkpoint, error) {
	keys := c.StringSlice("key")
	for _, key := range keys {
		if err := audit.CheckVerifierKey(key); err != nil {
			return nil, usagef("audit verify: --key %q: %v", key, err)
		}
	}
	if len(keys) == 0 {
		known, err := e.store.AuditKeys(c.Context)
		if err != nil {
			return nil, err
		}
		for _, k := range known {
			keys = append(keys, k.VerifierKey)
		}
	}
	kept, err := e.store.Checkpoints(c.Context)
	if err != nil {
		return nil, err
	}
	var opened []audit.Checkpoint
	for _, k := range kept {
		checkpoint, err := openCheckpoint(k.Note, keys)
		if err != nil {
			return nil, fmt.Errorf("checkpoint of %s in the store: %w", pluralOf(k.Size, "entry", "entries"), err)
		}
		opened = append(opened, checkpoint)
	}
	for _, name := range c.Args().Slice() {
		note, err := readInput(e.ui, name, maxKeyPackageBytes)
		if err != nil {
			return nil, err
		}
		checkpoint, err := openCheckpoint(note, keys)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		opened = append(opened, checkpoint)
	}
	return opened, nil
}

func openCheckpoint(note []byte, keys []string) (audit.Checkpoint, error) {
	var faults error
	for _, key := range keys {
		checkpoint, err := audit.Open(note, key)
		if err == nil {
			return checkpoint, nil
		}
		faults = err
	}
	if faults == nil {
		return audit.Checkpoint{}, errForeignCheckpoint
	}
	return audit.Checkpoint{}, fmt.Errorf("%w: %w", errForeignCheckpoint, faults)
}

func auditCheckpointCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "sign how the trail stands now, with a key in the token",
		Description: `Verifies the trail against the checkpoints before, signs its size and its Merkle root
(C2SP signed note and checkpoint), keeps the checkpoint in the store and prints it. Keep a copy
where nobody can change it: whoever has one sees whether an entry before it was changed or
removed. The key is made at the first checkpoint; note its verifier key, which "hsm-kp audit
key" prints. Run it on a schedule.

Examples:
   hsm-kp audit checkpoint >/mnt/worm/checkpoint-$(date +%F).txt
   hsm-kp audit checkpoint --json | jq .size`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			return e.checkpoint(c)
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

func (e *env) checkpoint(c *cli.Context) error {
	key, record, err := e.auditKey(c.Context)
	if err != nil {
		return err
	}
	before, err := e.openCheckpoints(c)
	if err != nil {
		return err
	}
	result, err := audit.Verify(e.store.Entries(c.Context, 0), before)
	if err != nil {
		return err
	}
	checkpoint := audit.Checkpoint{Origin: record.Origin, Size: result.Entries, Root: result.Root}
	note, err := audit.Sign(checkpoint, key)
	if err != nil {
		return err
	}
	if err := e.store.AddCheckpoint(c.Context, store.Checkpoint{Size: checkpoint.Size, Note: note, CreatedAt: time.Now()}); err != nil {
		return err
	}
	if c.Bool("json") {
		return e.ui.json(checkpointJSON{checkpoint.Origin, checkpoint.Size, checkpoint.Root.String(), string(note)})
	}
	e.ui.printf("%s", note)
	return nil
}

// auditSchemes are the signature schemes of checkpoints: every tool reads Ed25519, and
// every HSM signs P-256.
var auditSchemes = []ciphersuite.SignatureScheme{ciphersuite.ED25519, ciphersuite.ECDSA_SECP256R1_SHA256}

// auditKey returns the key that signs checkpoints. The first time, it makes it.
func (e *env) auditKey(ctx context.Context) (*signer.Key, store.AuditKey, error) {
	t, err := e.openToken(ctx)
	if err != nil {
		return nil, store.AuditKey{}, err
	}
	keys, err := e.store.AuditKeys(ctx)
	if err != nil {
		return nil, store.AuditKey{}, err
	}
	if len(keys) == 0 {
		return e.makeAuditKey(ctx, t)
	}
	record := keys[len(keys)-1]
	key, err := findKey(ctx, t, token.KeyQuery{ID: record.KeyID}, false)
	if err != nil {
		return nil, record, fmt.Errorf("find the audit key: %w", err)
	}
	verifier, err := audit.VerifierKey(record.Origin, key.Public())
	if err == nil && verifier != record.VerifierKey {
		err = fmt.Errorf("audit key %x: %w", record.KeyID, errOtherAuditKey)
	}
	return key, record, err
}

// errOtherAuditKey reports a key in the token that is not the one that was recorded.
var errOtherAuditKey = errors.New("the token's key is not the one that the store knows")

func (e *env) makeAuditKey(ctx context.Context, t *token.Token) (key *signer.Key, record store.AuditKey, err error) {
	inv, err := e.inventory(ctx)
	if err != nil {
		return nil, record, err
	}
	serial := t.Info().Serial
	id, err := vault.NewKeyID(inv.Rand)
	if err != nil {
		return nil, record, err
	}
	record = store.AuditKey{
		KeyID: id, Label: "hsm-kp audit", TokenSerial: serial,
		Origin: cmp.Or(e.config.Audit.Origin, "hsm-kp/"+serial), CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	if err := audit.CheckOrigin(record.Origin); err != nil {
		return nil, record, usagef("audit.origin: %v", err)
	}
	intent := store.Intent{KeyID: id, Object: store.ObjectSignatureKey, TokenSerial: serial, CreatedAt: record.CreatedAt}
	err = inv.Make(ctx, intent, func(ctx context.Context) error {
		var faults error
		for _, scheme := range auditSchemes {
			if key, err = signer.Generate(ctx, t, scheme, id, record.Label); err == nil {
				break
			}
			faults = errors.Join(faults, err)
		}
		if err != nil {
			return fmt.Errorf("make the audit key: %w", faults)
		}
		if record.VerifierKey, err = audit.VerifierKey(record.Origin, key.Public()); err != nil {
			return err
		}
		return e.store.AddAuditKey(ctx, record)
	})
	if err == nil {
		e.ui.notef("made the audit key; note its verifier key elsewhere: %s", record.VerifierKey)
	}
	return key, record, err
}

func auditKeyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "print the verifier key of the checkpoints",
		Description: `It is made at the first "hsm-kp audit checkpoint". Note it elsewhere: an auditor verifies
with that note, and not with what the store says on the day.

Examples:
   hsm-kp audit key >audit.vkey`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			keys, err := e.store.AuditKeys(c.Context)
			if err != nil {
				return err
			}
			for _, k := range keys {
				if c.Bool("json") {
					err = u.jsonLine(auditKeyJSON{k.VerifierKey, hex.EncodeToString(k.KeyID), k.TokenSerial, k.Origin, k.CreatedAt})
				} else {
					u.printf("%s\n", k.VerifierKey)
				}
				if err != nil {
					return err
				}
			}
			if len(keys) == 0 {
				u.notef("there is none yet: `hsm-kp audit checkpoint` makes it")
			}
			return nil
		}),
	}
}

// auditKeyJSON is a line of `audit key --json`.
type auditKeyJSON struct {
	VerifierKey string    `json:"verifier_key"`
	KeyID       string    `json:"key_id"`
	TokenSerial string    `json:"token_serial"`
	Origin      string    `json:"origin"`
	CreatedAt   time.Time `json:"created_at"`
}
