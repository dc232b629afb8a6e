package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/policy"
	"github.com/hsm-kp/hsm-kp/internal/profile"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// GenerateRequest asks for key packages of an identity.
type GenerateRequest struct {
	Identity   string
	Count      uint64 // 1 or more
	LastResort bool
	// IfDue makes one of last resort only if the previous one was used or is old, and then
	// retires that one. It requires LastResort and a Count of 1.
	IfDue   bool
	Custody string // empty: the config's

	// The rest replaces or extends what the config says.
	Lifetime       time.Duration          // from now; 0: the config's
	ApplicationID  []byte                 // in the leaf nodes; nil: the config's
	Extensions     []keypackage.Extension // beside the config's
	LeafExtensions []keypackage.Extension // beside the config's
	Peers          []*profile.Profile     // to warn of; nil: the config's, or all

	// Folder is where the public parts are written; empty: nowhere. Key packages are pending
	// until their files are on the disk, and then published.
	Folder string
	// Each receives every batch after it is durable and written, in order; it may be nil. An error
	// ends the run.
	Each func([]Written) error
}

// Written is a key package and the file that has its public part, if there is one.
type Written struct {
	store.KeyPackage
	File string
}

// GenerateResult is what a run of Generate has made, even if it failed.
type GenerateResult struct {
	Identity *identity.Identity // nil if it could not be opened, or if nothing was due
	Stored   uint64             // durable
	Written  uint64             // of these, written to the folder and given to Each
	Folder   string             // as it is written in names of files
	Took     time.Duration
	Due      bool   // false: the key package of last resort is fresh
	Retired  uint64 // of last resort, which a new one replaced
}

// Generate makes key packages: signed in the token, their private keys under a wrapping key and
// stored. If ctx ends, the batch under way is stored; the error is ErrPartial.
func (o *Operator) Generate(ctx context.Context, r GenerateRequest) (GenerateResult, error) {
	record, err := o.record(ctx, r.Identity)
	if err == nil {
		err = requireSigning(&record)
	}
	if err != nil {
		return GenerateResult{}, err
	}
	p, err := o.productionOf(&record, &r)
	if err != nil {
		return GenerateResult{}, err
	}
	if err := o.tidy(ctx); err != nil {
		return GenerateResult{}, err
	}
	old, due := [][]byte(nil), true
	if r.IfDue {
		if old, due, err = o.lastResorts(ctx, &record, o.now()); err != nil || !due {
			return GenerateResult{}, err
		}
	}
	result, err := o.produce(ctx, p)
	if err == nil {
		result.Retired, err = o.retireOld(ctx, old)
	}
	return result, err
}

// productionOf combines a request with the config.
func (o *Operator) productionOf(record *store.Identity, r *GenerateRequest) (production, error) {
	p, err := o.production(record, r.Custody, r.Count, r.LastResort)
	if err != nil {
		return p, err
	}
	if r.Lifetime != 0 {
		p.policy.Lifetime = r.Lifetime
	}
	if r.ApplicationID != nil {
		p.policy.LeafExtensions = slices.DeleteFunc(p.policy.LeafExtensions, func(e keypackage.Extension) bool {
			return e.Type == keypackage.ExtensionApplicationID
		})
		p.policy.LeafExtensions = append(p.policy.LeafExtensions, keypackage.ApplicationID(r.ApplicationID))
	}
	p.policy.LeafExtensions = append(p.policy.LeafExtensions, r.LeafExtensions...)
	p.policy.Extensions = append(p.policy.Extensions, r.Extensions...)
	if r.Peers != nil {
		p.peers = r.Peers
	}
	p.folder, p.each = r.Folder, r.Each
	return p, nil
}

// production is what key packages are made of.
type production struct {
	record     *store.Identity
	policy     identity.Policy
	peers      []*profile.Profile
	custody    string
	count      uint64
	lastResort bool
	folder     string                // empty: none
	each       func([]Written) error // may be nil
}

// production returns what the config says about key packages of an identity. An empty custody is the
// config's.
func (o *Operator) production(record *store.Identity, custody string, count uint64, lastResort bool) (production, error) {
	p := production{record: record, custody: custody, count: count, lastResort: lastResort}
	if p.custody == "" {
		p.custody = o.settings.CustodyOf(record.Name)
	}
	if p.custody != vault.CustodyWrapped && p.custody != vault.CustodyToken {
		return p, requestf("custody %q is neither wrapped nor token", p.custody)
	}
	var err error
	if p.policy, err = policy.Of(o.settings, record.Name, o.rand); err != nil {
		return p, err
	}
	if len(o.settings.KeyPackages.Peers) == 0 {
		p.peers = profile.All()
	} else if p.peers, err = policy.Peers(o.settings.KeyPackages.Peers); err != nil {
		return p, requestf("key_packages.peers %v", err)
	}
	return p, nil
}

// produce makes key packages.
func (o *Operator) produce(ctx context.Context, p production) (GenerateResult, error) {
	result := GenerateResult{Due: true}
	var out *directory.Spool
	if p.folder != "" {
		var err error
		if out, err = directory.OpenSpool(p.folder); err != nil {
			return result, err
		}
		result.Folder = out.Path()
	}
	id, err := o.signerOf(ctx, p.record)
	if err != nil {
		return result, err
	}
	result.Identity = id
	if id.Credential.Type == keypackage.CredentialX509 {
		if p.policy.Roots, err = policy.Roots(o.settings.X509.Roots); err != nil {
			return result, err
		}
	}
	if !o.scheduled {
		if err := o.RotateWhenDue(ctx); err != nil {
			return result, err
		}
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return result, err
	}
	if err := o.warnOf(id, p.policy, p.lastResort, p.peers); err != nil {
		return result, err
	}
	start := o.now()
	g := &generation{Operator: o, ctx: context.WithoutCancel(ctx), out: out, each: p.each, count: p.count, start: start}
	result.Stored, err = inv.Generate(ctx, inventory.Request{
		Identity:   id,
		Version:    p.record.Version,
		Policy:     p.policy,
		Count:      p.count,
		LastResort: p.lastResort,
		Pending:    out != nil,
		Custody:    p.custody,
		Now:        start,
	}, g.take)
	result.Written, result.Took = g.taken, o.now().Sub(start)
	if errors.Is(err, inventory.ErrInterrupted) {
		err = fmt.Errorf("%w: %d of %s are stored: %w", ErrPartial, result.Stored, Plural(p.count, "key package"), context.Cause(ctx))
	}
	return result, err
}

// generation is a run that makes key packages.
type generation struct {
	*Operator
	ctx   context.Context // of work that must complete
	out   *directory.Spool
	each  func([]Written) error
	count uint64
	taken uint64
	start time.Time
}

// take receives a durable batch: it writes the public parts, then passes the batch to each.
func (g *generation) take(batch []store.KeyPackage) error {
	files, err := g.write(batch)
	if err != nil {
		return err
	}
	if g.each != nil {
		written := make([]Written, len(batch))
		for i := range batch {
			written[i] = Written{batch[i], files[i]}
		}
		if err := g.each(written); err != nil {
			return err
		}
	}
	g.taken += uint64(len(batch))
	g.report.Progress(Progress{Done: g.taken, Of: g.count, Noun: "key package", Since: g.start})
	return nil
}

// write writes a batch to the folder, if there is one, and records it as published after it is on
// the disk.
func (g *generation) write(batch []store.KeyPackage) ([]string, error) {
	if g.out == nil {
		return make([]string, len(batch)), nil
	}
	files, err := writeAll(g.out, batch)
	if err != nil {
		return nil, err
	}
	now := g.now()
	refs := make([][]byte, len(batch))
	for i := range batch {
		refs[i] = batch[i].Ref
		batch[i].State, batch[i].PublishedAt = store.Published, now
	}
	return files, g.store.Move(g.ctx, refs, []store.State{store.Pending}, store.Published, now)
}

// retireOld retires key packages of last resort that another replaced, and returns how many.
func (o *Operator) retireOld(ctx context.Context, old [][]byte) (retired uint64, err error) {
	now := o.now()
	until := now.Add(time.Duration(o.settings.KeyPackages.Grace))
	for _, ref := range old {
		err := o.store.Retire(ctx, [][]byte{ref}, until, now)
		if errors.Is(err, store.ErrState) {
			continue // it ended by itself in the meantime
		}
		if err != nil {
			return retired, err
		}
		retired++
	}
	if retired > 0 {
		o.notef("retired %s of last resort", Plural(retired, "key package"))
	}
	return retired, nil
}

// lastResorts returns the key packages of last resort that a new one replaces, and whether one
// is due: none of them is fresh. A fresh one is valid after the given time.
func (o *Operator) lastResorts(ctx context.Context, record *store.Identity, after time.Time) (old [][]byte, due bool, err error) {
	now, due := o.now(), true
	for k, err := range o.store.KeyPackages(ctx, store.Filter{Identity: record.Name, LastResort: true}) {
		if err != nil {
			return nil, false, err
		}
		if !store.Allowed(k.State, store.Retire, store.Retired) && k.State != store.Reserved {
			continue
		}
		used := k.State == store.Reserved || k.Opened > 0
		aged := now.After(k.CreatedAt.Add(time.Duration(o.settings.KeyPackages.LastResort.MaxAge))) || after.After(k.NotAfter)
		if !used && !aged && k.Version == record.Version {
			due = false
			continue
		}
		old = append(old, k.Ref)
	}
	return old, due, nil
}

// warnOf warns, before key packages are made, of certificates that end before the lifetime would,
// and of MLS implementations that would refuse the key packages.
func (o *Operator) warnOf(id *identity.Identity, p identity.Policy, lastResort bool, peers []*profile.Profile) error {
	if o.report == (Silent{}) {
		return nil
	}
	if id.Suite.Experimental {
		o.warnf("cipher suite %v (0x%04X) is experimental: its number is not assigned, and peers may take it for another suite", id.Suite.ID, uint16(id.Suite.ID))
	}
	now := o.now()
	template, err := id.Template(p, now, lastResort)
	if err != nil {
		return fmt.Errorf("prepare key packages: %w", err)
	}
	if end := time.Unix(int64(template.Lifetime.NotAfter), 0).UTC(); end.Before(now.Add(p.Lifetime).Truncate(time.Second)) {
		o.warnf("the certificates of %q end at %s, and so do the key packages: %s", id.Name, end.Format(time.RFC3339), certificate.DaysLeft(end, now))
	}
	if begin := time.Unix(int64(template.Lifetime.NotBefore), 0).UTC(); begin.After(now.Add(-p.Backdate)) {
		o.warnf("the certificates of %q began at %s, and so do the key packages: peers whose clocks are behind may refuse them", id.Name, begin.Format(time.RFC3339))
	}
	kp := template.Unsigned()
	findings := keypackage.ValidateUnsigned(kp, keypackage.Policy{Now: uint64(now.Unix())})
	for _, w := range profile.Warnings(peers, kp, findings) {
		o.warnf("%s", w)
	}
	return nil
}
