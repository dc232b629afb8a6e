package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/user"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
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
key. There is one for every act on a key, added in the transaction that records the act. Those
of one key package are found by an index, which no hash is over: that none was hidden from it is
what "hsm-kp audit verify" finds.

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
			entries, of := e.store.Entries(c.Context, c.Uint64("from")), keypackage.Ref(nil)
			if c.NArg() == 1 {
				if of, err = e.Records().Resolve(c.Context, c.Args().First()); err != nil {
					return err
				}
				entries = e.store.EntriesOf(c.Context, of)
			}
			return e.showEntries(entries, of, c.Uint64("from"), c.Uint64("limit"), c.Bool("json"))
		},
	}
}

// showEntries shows those from one on, which have to be about the key package of, where there
// is one.
func (e *env) showEntries(entries iter.Seq2[audit.Stored, error], of keypackage.Ref, from, limit uint64, asJSON bool) error {
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
		if of != nil && !bytes.Equal(entry.Ref, of) {
			return fmt.Errorf("read the audit trail: entry %d: %w: it is about another key package", entry.Sequence, audit.ErrTampered)
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
		Description: `Computes the chain of hashes and the Merkle tree anew from the first entry, sees that each
entry is found under the key package that it is about ("hsm-kp audit show REF"), and compares
with the checkpoints that the store has and with those in the files given: keep these
elsewhere, because who can write to the store can write all of it anew, but for what a
checkpoint elsewhere says. --key is the verifier key that you noted when it was made; without
it, the store's own is believed. A later key is believed where the trail names it and a
checkpoint of a believed key is over the entry that does ("hsm-kp audit key --new" makes one
so); another has to be given. No token is needed.

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
	result, err := e.verifyCheckpoints(c)
	if c.Bool("json") && result != nil {
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
			operator.PluralOf(uint64(result.Checkpoints), "checkpoint says", "checkpoints say"), operator.PluralOf(result.Unattested, "entry", "entries"))
	}
	e.ui.printf("%s in order, %s\n", operator.PluralOf(result.Entries, "entry", "entries"), attested)
	e.ui.printf("root  %v\n", result.Root)
	if result.Backwards > 0 {
		e.ui.warnf("the clock was set back %s", operator.Plural(result.Backwards, "time"))
	}
	return nil
}

// errForeignCheckpoint reports a checkpoint that no known key signed.
var errForeignCheckpoint = errors.New("no key that is believed signed it")

// namedNote is a checkpoint, and what it is called when it is at fault.
type namedNote struct {
	note []byte
	name string
}

// verifyCheckpoints verifies the trail against the checkpoints of the store and of the files
// that the command line names. The result is nil where one of them is not believed.
func (e *env) verifyCheckpoints(c *cli.Context) (*audit.Result, error) {
	keys, err := e.verifierKeys(c)
	if err != nil {
		return nil, err
	}
	named, err := e.notes(c)
	if err != nil {
		return nil, err
	}
	checkpoints, announced, err := e.openCheckpoints(c.Context, named, keys)
	if err != nil {
		return nil, err
	}
	var seen []audit.Announcement
	result, err := audit.Verify(audit.Announced(e.store.Entries(c.Context, 0), &seen), checkpoints)
	if err == nil && announced != nil && !slices.Equal(seen[:min(len(announced), len(seen))], announced) {
		err = fmt.Errorf("%w while it was read", audit.ErrTampered)
	}
	return &result, err
}

// verifierKeys are the keys that the command line names, or those of the store.
func (e *env) verifierKeys(c *cli.Context) ([]string, error) {
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
	return keys, nil
}

// notes are the checkpoints of the store and of the files that the command line names.
func (e *env) notes(c *cli.Context) (named []namedNote, err error) {
	kept, err := e.store.Checkpoints(c.Context)
	for _, k := range kept {
		named = append(named, namedNote{k.Note, fmt.Sprintf("checkpoint of %s in the store", operator.PluralOf(k.Size, "entry", "entries"))})
	}
	for _, name := range c.Args().Slice() {
		note, fault := readInput(e.ui, name, maxKeyPackageBytes)
		if fault != nil {
			return nil, fault
		}
		named = append(named, namedNote{note, name})
	}
	return named, err
}

// openCheckpoints opens checkpoints once their signatures are verified, by keys that are
// believed or, where these have not signed all, by those that the trail names. It returns
// what the trail named, where it was asked.
func (e *env) openCheckpoints(ctx context.Context, named []namedNote, keys []string) ([]audit.Checkpoint, []audit.Announcement, error) {
	var notes [][]byte
	for _, n := range named {
		notes = append(notes, n.note)
	}
	var announced []audit.Announcement
	opened := audit.OpenAll(notes, keys, nil)
	if slices.Contains(opened, nil) {
		var err error
		if announced, err = audit.Announcements(e.store.Entries(ctx, 0)); err != nil {
			return nil, nil, err
		}
		opened = audit.OpenAll(notes, keys, announced)
	}
	var checkpoints []audit.Checkpoint
	for i, checkpoint := range opened {
		if checkpoint == nil {
			return nil, nil, foreign(named[i], keys, announced)
		}
		checkpoints = append(checkpoints, *checkpoint)
	}
	return checkpoints, announced, nil
}

// foreign says why a checkpoint is not believed.
func foreign(n namedNote, keys []string, announced []audit.Announcement) error {
	for i, a := range announced {
		if _, err := audit.Open(n.note, a.VerifierKey); err == nil && i > 0 { // the first takes no other's place
			err := fmt.Errorf("%s: %w: entry %d of the trail names one that did, and no checkpoint of a key that is believed is over that entry", n.name, errForeignCheckpoint, a.Sequence)
			return advise(err, errForeignCheckpoint, "where the key before was lost, ask those who made the new one, and give its verifier key too, with --key")
		}
	}
	var fault error
	for _, key := range keys {
		_, fault = audit.Open(n.note, key)
	}
	if fault == nil {
		return fmt.Errorf("%s: %w", n.name, errForeignCheckpoint)
	}
	return fmt.Errorf("%s: %w: %w", n.name, errForeignCheckpoint, fault)
}

func auditCheckpointCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "sign how the trail stands now, with a key in the token",
		Description: `Verifies the trail against the checkpoints before, signs its size and its Merkle root
(C2SP signed note and checkpoint), keeps the checkpoint in the store and prints it. Keep a copy
where nobody can change it: whoever has one sees whether an entry before it was changed or
removed. The key is made at the first checkpoint; note its verifier key, which "hsm-kp audit
key" prints. "hsm-kp audit key --new" makes another. Run it on a schedule.

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
	result, announced, err := e.verifyOwn(c)
	if err != nil {
		return err
	}
	if err := e.completeHandover(c.Context, result, announced); err != nil {
		return err
	}
	checkpoint, note, err := e.sign(c.Context, result, key, &record)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return e.ui.json(checkpointJSON{checkpoint.Origin, checkpoint.Size, checkpoint.Root.String(), string(note)})
	}
	e.ui.printf("%s", note)
	return nil
}

// verifyOwn verifies the trail against the store's own checkpoints and keys, before it is
// signed, and returns the keys that it names.
func (e *env) verifyOwn(c *cli.Context) (result audit.Result, announced []audit.Announcement, err error) {
	keys, err := e.verifierKeys(c)
	if err != nil {
		return result, nil, err
	}
	named, err := e.notes(c)
	if err != nil {
		return result, nil, err
	}
	checkpoints, _, err := e.openCheckpoints(c.Context, named, keys)
	if err != nil {
		return result, nil, err
	}
	result, err = audit.Verify(audit.Announced(e.store.Entries(c.Context, 0), &announced), checkpoints)
	return result, announced, err
}

// sign signs how a verified trail stands, and keeps the checkpoint.
func (e *env) sign(ctx context.Context, result audit.Result, key *signer.Key, record *store.AuditKey) (audit.Checkpoint, []byte, error) {
	checkpoint := audit.Checkpoint{Origin: record.Origin, Size: result.Entries, Root: result.Root}
	note, err := audit.Sign(checkpoint, key)
	if err == nil {
		err = e.store.AddCheckpoint(ctx, store.Checkpoint{Size: checkpoint.Size, Note: note, CreatedAt: time.Now()})
	}
	return checkpoint, note, err
}

// auditSchemes are the signature schemes of checkpoints: every tool reads Ed25519, and
// every HSM signs P-256.
var auditSchemes = []ciphersuite.SignatureScheme{ciphersuite.ED25519, ciphersuite.ECDSA_SECP256R1_SHA256}

// auditKey returns the key that signs checkpoints. The first time, it makes it; of several
// processes for which it is the first time, one does.
func (e *env) auditKey(ctx context.Context) (*signer.Key, store.AuditKey, error) {
	keys, err := e.store.AuditKeys(ctx)
	if err == nil && len(keys) == 0 {
		if _, err = e.makeAuditKey(ctx, nil); err == nil {
			keys, err = e.store.AuditKeys(ctx)
		}
	}
	if err != nil {
		return nil, store.AuditKey{}, err
	}
	record := keys[len(keys)-1]
	key, err := e.findAuditKey(ctx, &record)
	if errors.Is(err, token.ErrNotFound) {
		err = advise(err, token.ErrNotFound, "where it is lost for good, `hsm-kp audit key --new` begins a new one")
	}
	return key, record, err
}

// findAuditKey returns an audit key that was recorded.
func (e *env) findAuditKey(ctx context.Context, record *store.AuditKey) (*signer.Key, error) {
	t, err := e.openToken(ctx)
	if err != nil {
		return nil, err
	}
	key, err := operator.FindKey(ctx, t, token.KeyQuery{ID: record.KeyID}, false)
	if err != nil {
		return nil, fmt.Errorf("find the audit key: %w", err)
	}
	return key, sameAuditKey(record, key)
}

// sameAuditKey reports whether a key of the token is the one that was recorded.
func sameAuditKey(record *store.AuditKey, key *signer.Key) error {
	verifier, err := audit.VerifierKey(record.Origin, key.Public())
	if err == nil && verifier != record.VerifierKey {
		err = fmt.Errorf("audit key %x: %w", record.KeyID, errOtherAuditKey)
	}
	return err
}

// errOtherAuditKey reports a key in the token that is not the one that was recorded.
var errOtherAuditKey = errors.New("the token's key is not the one that the store knows")

// makeAuditKey makes an audit key in the place of another, or the first one where that is
// empty. It reports whether it has: of several at once, one does.
func (e *env) makeAuditKey(ctx context.Context, instead []byte) (bool, error) {
	inv, err := e.Inventory(ctx)
	if err != nil {
		return false, err
	}
	serial := e.token.Info().Serial
	id, err := vault.NewKeyID(inv.Rand)
	if err != nil {
		return false, err
	}
	record := store.AuditKey{
		KeyID: id, Label: "hsm-kp audit", TokenSerial: serial,
		Origin: cmp.Or(e.config.Audit.Origin, "hsm-kp/"+serial), CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	if err := audit.CheckOrigin(record.Origin); err != nil {
		return false, usagef("audit.origin: %v", err)
	}
	intent := store.Intent{KeyID: id, Object: store.ObjectAuditKey, TokenSerial: serial, CreatedAt: record.CreatedAt, Instead: instead}
	made, err := inv.Succeed(ctx, intent, e.currentAuditKey, func(ctx context.Context) error { return e.generateAuditKey(ctx, &record) })
	if made {
		e.ui.notef("made the audit key; note its verifier key elsewhere: %s", record.VerifierKey)
	}
	return made, advise(err, inventory.ErrUnderWay, "`hsm-kp sweep --unfinished 0s` where no other hsm-kp runs repairs what a crash left")
}

// currentAuditKey returns the id of the key that signs checkpoints.
func (e *env) currentAuditKey(ctx context.Context) ([]byte, error) {
	keys, err := e.store.AuditKeys(ctx)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return keys[len(keys)-1].KeyID, nil
}

// generateAuditKey makes an audit key in the token and records it.
func (e *env) generateAuditKey(ctx context.Context, record *store.AuditKey) error {
	var faults error
	for _, scheme := range auditSchemes {
		key, err := signer.Generate(ctx, e.token, scheme, record.KeyID, record.Label)
		if err != nil {
			faults = errors.Join(faults, err)
			continue
		}
		if record.VerifierKey, err = audit.VerifierKey(record.Origin, key.Public()); err != nil {
			return err
		}
		return e.store.AddAuditKey(ctx, *record)
	}
	return fmt.Errorf("make the audit key: %w", faults)
}

// newAuditKey makes an audit key in the place of the one that is. The one before signs a last
// checkpoint, over the entry that names the new one: whoever believes it believes the other.
func (e *env) newAuditKey(c *cli.Context) error {
	before, err := e.currentAuditKey(c.Context)
	if err != nil {
		return err
	}
	made, err := e.makeAuditKey(c.Context, before)
	switch {
	case err != nil:
		return err
	case !made:
		return fmt.Errorf("new audit key: %w: another process has made one just now", store.ErrState)
	case len(before) == 0:
		return nil
	}
	result, announced, err := e.verifyOwn(c)
	if err != nil {
		return err
	}
	note, err := e.handOver(c.Context, result, announced)
	switch {
	case isAny(err, token.ErrNotFound, errOtherAuditKey):
		e.ui.warnf("the audit key before is lost, and vouches for no other: hand the verifier key to all who verify")
		return nil
	case err != nil:
		return err
	case c.Bool("json"):
		return e.ui.json(handoverJSON{string(note)})
	}
	e.ui.printf("%s", note)
	return nil
}

// handoverJSON is what `audit key --new --json` prints.
type handoverJSON struct {
	Note string `json:"note"`
}

// handOver has the key before the current one sign how the trail stands, where it has not
// done so since the trail names the current one.
func (e *env) handOver(ctx context.Context, result audit.Result, announced []audit.Announcement) ([]byte, error) {
	keys, err := e.store.AuditKeys(ctx)
	if err != nil || len(keys) < 2 {
		return nil, err
	}
	before, now := keys[len(keys)-2], keys[len(keys)-1]
	kept, err := e.store.Checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range announced {
		for _, k := range kept {
			if a.VerifierKey != now.VerifierKey || k.Size <= a.Sequence {
				continue
			}
			if _, err := audit.Open(k.Note, before.VerifierKey); err == nil {
				return k.Note, nil
			}
		}
	}
	key, err := e.findAuditKey(ctx, &before)
	if err != nil {
		return nil, err
	}
	_, note, err := e.sign(ctx, result, key, &before)
	return note, err
}

// completeHandover hands over to the current key where a crash came between. A key that was
// lost hands nothing over.
func (e *env) completeHandover(ctx context.Context, result audit.Result, announced []audit.Announcement) error {
	_, err := e.handOver(ctx, result, announced)
	if isAny(err, token.ErrNotFound, errOtherAuditKey) {
		return nil
	}
	return err
}

func auditKeyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "print the verifier keys of the checkpoints, or begin a new one",
		Description: `The first is made at the first "hsm-kp audit checkpoint". Note it elsewhere: an auditor
verifies with that note, and not with what the store says on the day.

--new makes another in its place: because it was lost, or its token is to go. The trail names
the new one. Where the key before is there, it signs a last checkpoint over the entry that does:
that is printed. Keep it with the others, because whoever believes the key before believes the
new one by it. Where it is lost, hand the new verifier key to all who verify.

Examples:
   hsm-kp audit key >audit.vkey
   hsm-kp audit key --new >/mnt/worm/checkpoint-$(date +%F)-last.txt`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "new", Usage: "make a key in the place of the last one"}, jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			if c.Bool("new") {
				return e.newAuditKey(c)
			}
			return e.printAuditKeys(c)
		}),
	}
}

func (e *env) printAuditKeys(c *cli.Context) error {
	keys, err := e.store.AuditKeys(c.Context)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if !c.Bool("json") {
			e.ui.printf("%s\n", k.VerifierKey)
			continue
		}
		if err := e.ui.jsonLine(auditKeyJSON{k.VerifierKey, hex.EncodeToString(k.KeyID), k.TokenSerial, k.Origin, k.CreatedAt}); err != nil {
			return err
		}
	}
	if len(keys) == 0 {
		return errNoAuditKey
	}
	return nil
}

// errNoAuditKey reports that no checkpoint was made yet.
var errNoAuditKey = errors.New("there is no audit key yet")

// auditKeyJSON is a line of `audit key --json`.
type auditKeyJSON struct {
	VerifierKey string    `json:"verifier_key"`
	KeyID       string    `json:"key_id"`
	TokenSerial string    `json:"token_serial"`
	Origin      string    `json:"origin"`
	CreatedAt   time.Time `json:"created_at"`
}
