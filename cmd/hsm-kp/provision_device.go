package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// check refuses what a manifest may say and this token and config cannot do, before anything
// is made. The token is not needed for it.
func (p *provisioner) check() error {
	var faults []manifest.Fault
	for i := range p.lines {
		if err := p.checkLine(&p.lines[i]); err != nil {
			faults = append(faults, manifest.Fault{Line: p.lines[i].Number, What: err.Error()})
		}
	}
	if faults != nil {
		return &manifest.Error{Faults: faults}
	}
	return nil
}

func (p *provisioner) checkLine(l *manifest.Line) error {
	if err := identity.CheckName(l.Name); err != nil {
		return err
	}
	suite, err := p.Suite(l.Suite)
	if err != nil {
		return err
	}
	if l.Custody == manifest.Device {
		for _, key := range [][]byte{l.InitKey, l.EncryptionKey} {
			if err := hpke.ValidPublicKey(suite, key); err != nil {
				return err
			}
		}
		if bytes.Equal(l.InitKey, l.EncryptionKey) {
			return errors.New("init_key and encryption_key are the same")
		}
	}
	if l.Custody == manifest.Release {
		if err := hpke.ValidPublicKey(suite, l.ReleaseKey); err != nil {
			return fmt.Errorf("release_key: %w", err)
		}
	}
	if l.Credential != manifest.X509 {
		return nil
	}
	if suite.Signature == ciphersuite.ED448 {
		return fmt.Errorf("credential x509: %w, and %v has Ed448 keys", certificate.ErrKey, suite.ID)
	}
	_, err = p.request(l)
	return err
}

// request is what a device's certificate is asked for.
func (p *provisioner) request(l *manifest.Line) (r certificate.Request, err error) {
	subject, _ := p.SubjectOf(l.Name)
	if r.Subject, err = certificate.ParseName(cmp.Or(l.Subject, subject)); err != nil {
		return r, err
	}
	own := p.config.Identities[l.Name]
	r.DNSNames, r.Emails, r.URIs = own.DNSNames, own.Emails, own.URIs
	if len(l.DNSNames)+len(l.Emails)+len(l.URIs) > 0 {
		r.DNSNames, r.Emails, r.URIs = l.DNSNames, l.Emails, l.URIs
	}
	return r, r.Check()
}

// deviceBatch is how many key packages of one device are stored at once, so that the store has
// something to do while others of it are made; batches of several devices share transactions.
const deviceBatch = 50

// device gives one device what its line says.
type device struct {
	*env      // which warns nobody: what is worth a warning is told once for all
	enclosing *provisioner
	inventory *inventory.Inventory
	workers   int // for its key packages
}

// forOne returns a device's environment where so many are worked on at once.
func (p *provisioner) forOne(ctx context.Context, parallel int) (*device, error) {
	quiet := *p.env
	quiet.ui = &ui{in: p.ui.in, out: p.ui.out, errOut: io.Discard}
	quiet.Operator = p.Reporting(operator.Silent{})
	inv, err := p.env.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return &device{env: &quiet, enclosing: p, inventory: inv, workers: max(p.Workers(p.token)/max(min(parallel, len(p.lines)), 1), 1)}, nil
}

// provision gives the device of a line its identity and its key packages. The result says what
// it has, also where err is not nil.
func (d *device) provision(ctx context.Context, l *manifest.Line) (*provisioned, error) {
	r := &provisioned{Line: l.Number, Name: l.Name, Labels: l.Labels, Status: statusReady}
	record, isNew, err := d.identityOf(ctx, l)
	if err == nil {
		defer d.ForgetKey(record.KeyID)
		r.CipherSuite, r.KeyID, r.SignatureKey = ciphersuite.ID(record.Suite).String(), hex.EncodeToString(record.KeyID), hex.EncodeToString(record.SignatureKey)
		err = d.equip(ctx, l, &record, isNew, r)
	}
	if err != nil {
		r.Status, r.Error = statusFailed, err.Error()
	}
	return r, err
}

// equip certifies an identity where that is due, and makes its key packages.
func (d *device) equip(ctx context.Context, l *manifest.Line, record *store.Identity, isNew bool, r *provisioned) error {
	if l.Credential == manifest.X509 {
		chain, err := d.chain(ctx, l, record, r)
		if err != nil || chain == nil {
			return err
		}
		_, notAfter := chain.Validity()
		notAfter = notAfter.UTC()
		r.ValidUntil = &notAfter
	}
	return d.keyPackages(ctx, l, record, isNew, r)
}

// identityOf returns the identity of a device, which is made where there is none. One that is
// there has to be what the line says.
func (d *device) identityOf(ctx context.Context, l *manifest.Line) (record store.Identity, isNew bool, err error) {
	suite, err := d.Suite(l.Suite)
	if err != nil {
		return record, false, err
	}
	record, err = d.store.Identity(ctx, l.Name)
	if errors.Is(err, store.ErrNotFound) {
		if l.Custody != manifest.Device { // before there is an identity that is of no use
			if err := d.inventory.Keeps(ctx, l.Name, cmp.Or(l.Custody, d.config.CustodyOf(l.Name)), suite); err != nil {
				return record, true, err
			}
		}
		record, err = d.CreateChecked(ctx, suite, &operator.CreateIdentityRequest{Name: l.Name, Credential: l.Identity, X509: l.Credential == manifest.X509, Custody: l.Custody})
		return record, true, err
	}
	if err != nil {
		return record, false, err
	}
	return record, false, matches(&record, l, suite)
}

// errOther reports an identity that is there, and not what the manifest says.
var errOther = errors.New("the device is there already, with another")

func matches(record *store.Identity, l *manifest.Line, suite *ciphersuite.Suite) error {
	if err := operator.RequireSigning(record); err != nil {
		return err
	}
	if record.Suite != uint16(suite.ID) {
		return fmt.Errorf("%w cipher suite: %v", errOther, ciphersuite.ID(record.Suite))
	}
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	if isX509 := credential.Type == keypackage.CredentialX509; isX509 != (l.Credential == manifest.X509) {
		return fmt.Errorf("%w credential", errOther)
	}
	if l.Credential == manifest.Basic && string(credential.Identity) != cmp.Or(l.Identity, l.Name) {
		return fmt.Errorf("%w identity in its credential", errOther)
	}
	return nil
}

// chain returns the certificates of a device: those of the line's file, where it is there, else
// those that it has, else those that the enrolment command gives. Where there is no such command
// the result has the request, and the chain is nil.
func (d *device) chain(ctx context.Context, l *manifest.Line, record *store.Identity, r *provisioned) (certificate.Chain, error) {
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	chain, err := d.chainOfFile(l)
	switch {
	case err != nil:
		return nil, err
	case chain == nil && len(credential.Certificates) > 0:
		return credential.Chain()
	case chain == nil:
		chain, err = d.newChain(ctx, l, record, r)
	}
	if err != nil || chain == nil || bytes.Equal(keypackage.X509Credential(chain.DER()).Bytes(), record.Credential) {
		return chain, err
	}
	*record, err = d.ImportCertificate(ctx, l.Name, chain)
	return chain, err
}

// chainOfFile reads the file of a line. One that is not there yet is no fault.
func (d *device) chainOfFile(l *manifest.Line) (certificate.Chain, error) {
	if l.Certificate == "" {
		return nil, nil
	}
	name := l.Certificate
	if !filepath.IsAbs(name) {
		name = filepath.Join(d.enclosing.folder, name)
	}
	chain, err := readChain(d.ui, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return chain, err
}

func (d *device) newChain(ctx context.Context, l *manifest.Line, record *store.Identity, r *provisioned) (certificate.Chain, error) {
	id, err := d.OpenIdentity(ctx, record)
	if err != nil {
		return nil, err
	}
	request, err := d.enclosing.request(l)
	if err != nil {
		return nil, err
	}
	requested, err := d.RequestFor(ctx, id, request)
	if err != nil {
		return nil, err
	}
	if len(d.config.X509.Enroll.Command) == 0 {
		r.Status, r.CSR = statusAwaiting, string(requested.PEM)
		return nil, nil
	}
	return enroll(ctx, d.config, l.Name, requested.PEM)
}

// keyPackages makes what a device lacks of its key packages, and reports all that it has.
func (d *device) keyPackages(ctx context.Context, l *manifest.Line, record *store.Identity, isNew bool, r *provisioned) error {
	var had []store.KeyPackage
	var err error
	if !isNew {
		if had, err = d.had(ctx, record); err != nil {
			return err
		}
	}
	if l.Custody == manifest.Device {
		return d.ofDevice(ctx, l, record, had, r)
	}
	if had, err = d.counted(ctx, l, had); err != nil {
		return err
	}
	if err := d.report(ctx, l, had, r, 0); err != nil {
		return err
	}
	var have, last uint64
	for i := range had {
		if had[i].LastResort {
			last++
		} else {
			have++
		}
	}
	if have >= l.Count && (last > 0 || !l.LastResort) {
		return nil
	}
	request, err := d.ask(ctx, l, record)
	if err == nil && have < l.Count {
		err = d.generate(ctx, l, request, l.Count-have, false, r)
	}
	if err == nil && l.LastResort && last == 0 {
		err = d.generate(ctx, l, request, 1, true, r)
	}
	return err
}

// counted are the key packages that count for a line, of those that its device has: of custody
// release where the line has that, all of them for the key that it has; else those whose private keys
// are kept here.
func (d *device) counted(ctx context.Context, l *manifest.Line, had []store.KeyPackage) (out []store.KeyPackage, err error) {
	for i := range had {
		switch k := &had[i]; {
		case l.Custody == manifest.Release && k.Custody == vault.CustodyRelease:
			if err := d.inventory.CheckRelease(ctx, k, l.ReleaseKey, time.Now()); err != nil {
				return nil, err
			}
			out = append(out, *k)
		case l.Custody != manifest.Release && operator.IsKept(k.Custody):
			out = append(out, *k)
		}
	}
	return out, nil
}

// had returns the key packages that an identity signed and that have neither expired nor been
// retired.
func (d *device) had(ctx context.Context, record *store.Identity) ([]store.KeyPackage, error) {
	var out []store.KeyPackage
	now := time.Now()
	for k, err := range d.store.KeyPackages(ctx, store.Filter{Identity: record.Name}) {
		if err != nil {
			return nil, err
		}
		if k.Version == record.Version && now.Before(k.NotAfter) && (operator.IsLive(k.State) || k.State == store.Reserved || k.State == store.Consumed) {
			out = append(out, k)
		}
	}
	return out, nil
}

// ofDevice signs for the keys that a device made.
func (d *device) ofDevice(ctx context.Context, l *manifest.Line, record *store.Identity, had []store.KeyPackage, r *provisioned) error {
	for i := range had {
		kp, err := inventory.Public(&had[i])
		if err != nil {
			return err
		}
		if bytes.Equal(kp.InitKey, l.InitKey) && bytes.Equal(kp.LeafNode.EncryptionKey, l.EncryptionKey) {
			return d.report(ctx, l, had[i:i+1], r, 0)
		}
		if bytes.Equal(kp.InitKey, l.InitKey) {
			return fmt.Errorf("key package %v has the same init_key (RFC 9420, Section 10: each has its own)", keypackage.Ref(had[i].Ref))
		}
	}
	request, err := d.ask(ctx, l, record)
	if err != nil {
		return err
	}
	made, err := d.inventory.SignFor(ctx, request, l.InitKey, l.EncryptionKey)
	if err != nil {
		return err
	}
	return d.report(ctx, l, []store.KeyPackage{made}, r, 1)
}

// ask prepares what the inventory is asked for.
func (d *device) ask(ctx context.Context, l *manifest.Line, record *store.Identity) (inventory.Request, error) {
	id, err := d.OpenIdentity(ctx, record)
	if err != nil {
		return inventory.Request{}, err
	}
	policy, err := operator.PolicyOf(d.config, l.Name, rand.Reader)
	if err != nil {
		return inventory.Request{}, err
	}
	if id.Credential.Type == keypackage.CredentialX509 {
		if policy.Roots, err = operator.LoadRoots(d.config.X509.Roots); err != nil {
			return inventory.Request{}, err
		}
	}
	return inventory.Request{
		Identity: id, Version: record.Version, Policy: policy, Pending: d.enclosing.out != nil, Now: time.Now(),
		Custody: cmp.Or(l.Custody, d.config.CustodyOf(l.Name)), Workers: d.workers, ReleaseKey: l.ReleaseKey,
		Batch: min(deviceBatch, d.config.Store.Batch),
	}, nil
}

func (d *device) generate(ctx context.Context, l *manifest.Line, request inventory.Request, n uint64, lastResort bool, r *provisioned) error {
	request.Count, request.LastResort = n, lastResort
	_, err := d.inventory.Generate(ctx, request, func(batch []store.KeyPackage) error {
		return d.report(context.WithoutCancel(ctx), l, batch, r, len(batch))
	})
	return err
}

// report puts key packages into the result, of which so many are new. Where there is an output
// folder, those that are pending are written to it first, and published. What is for the device is
// handed over last: that is recorded before it is printed, and done again by the next run.
func (d *device) report(ctx context.Context, l *manifest.Line, batch []store.KeyPackage, r *provisioned, made int) error {
	r.Made += made
	files, err := d.publish(ctx, batch)
	if err != nil {
		return err
	}
	first := len(r.KeyPackages)
	for i := range batch {
		r.KeyPackages = append(r.KeyPackages, provisionedOf(&batch[i], files[string(batch[i].Ref)]))
	}
	if l.Custody != manifest.Release {
		return nil
	}
	return d.handOver(ctx, l, batch, r, r.KeyPackages[first:])
}

// handOver seals the private keys for the device that are not confirmed yet, and puts them into its
// results. Without --json nothing is printed of them, and so nothing is handed over.
func (d *device) handOver(ctx context.Context, l *manifest.Line, batch []store.KeyPackage, r *provisioned, results []provisionedKeyPackage) error {
	var records []store.KeyPackage
	var of []*provisionedKeyPackage
	for i := range batch {
		if batch[i].Unconfirmed() {
			records, of = append(records, batch[i]), append(of, &results[i])
		}
	}
	if !d.enclosing.json {
		r.waiting += len(records)
		return nil
	}
	released, err := d.inventory.HandOver(ctx, records, l.ReleaseKey, time.Now())
	for i := range released {
		kp, err := inventory.Public(&records[i])
		if err != nil {
			return err
		}
		of[i].Message, of[i].Released = kp.Message(), releasedOf(kp.CipherSuite, &released[i])
	}
	return err
}

// publish returns the files of those that it wrote, by their refs.
func (d *device) publish(ctx context.Context, batch []store.KeyPackage) (map[string]string, error) {
	out := d.enclosing.out
	if out == nil {
		return nil, nil
	}
	var pending []store.KeyPackage
	var refs [][]byte
	for i := range batch {
		if batch[i].State == store.Pending {
			pending, refs = append(pending, batch[i]), append(refs, batch[i].Ref)
			batch[i].State = store.Published
		}
	}
	if len(pending) == 0 {
		return nil, nil
	}
	names, err := operator.WriteAll(out, pending)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFolder, err)
	}
	files := make(map[string]string, len(names))
	for i := range names {
		files[string(refs[i])] = names[i]
	}
	return files, d.store.Move(ctx, refs, []store.State{store.Pending}, store.Published, time.Now())
}
