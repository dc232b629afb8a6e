package operator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/enroll"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/policy"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// deviceBatch is how many key packages of one device are stored at once, so that the store works
// while others of the device are made; batches of several devices share transactions.
const deviceBatch = 50

// device gives one device what its line says.
type device struct {
	*provisioner
	line   *manifest.Line
	record store.Identity
	isNew  bool // the identity was made by this run
	result *Provisioned
}

// provision gives the device of a line its identity and its key packages. The result says what it
// has, even if err is not nil.
func (p *provisioner) provision(ctx context.Context, l *manifest.Line) (*Provisioned, error) {
	d := &device{provisioner: p, line: l, result: &Provisioned{Line: l.Number, Name: l.Name, Labels: l.Labels, Status: DeviceReady}}
	err := d.identify(ctx)
	if err == nil {
		defer d.forget(d.record.KeyID)
		d.result.Suite, d.result.KeyID, d.result.SignatureKey = ciphersuite.ID(d.record.Suite), d.record.KeyID, d.record.SignatureKey
		err = d.equip(ctx)
	}
	if err != nil {
		d.result.Status, d.result.Err = DeviceFailed, err
	}
	return d.result, err
}

// identify finds the identity of the device, or makes it. An existing one must be what the line
// says.
func (d *device) identify(ctx context.Context) error {
	l := d.line
	suite, err := policy.Suite(d.settings, l.Suite)
	if err != nil {
		return err
	}
	d.record, err = d.store.Identity(ctx, l.Name)
	if err == nil {
		return matches(&d.record, l, suite)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if l.Custody != manifest.Device { // an identity whose key packages cannot be kept is useless
		if err := d.inventory.Keeps(ctx, l.Name, cmp.Or(l.Custody, d.settings.CustodyOf(l.Name)), suite); err != nil {
			return err
		}
	}
	d.isNew = true
	d.record, err = d.createIdentity(ctx, suite, &CreateIdentityRequest{
		Name: l.Name, Credential: l.Identity, X509: l.Credential == manifest.X509, Custody: l.Custody,
	})
	return err
}

// ErrOtherDevice reports an identity that exists and differs from the manifest.
var ErrOtherDevice = errors.New("the device exists already, with another")

func matches(record *store.Identity, l *manifest.Line, suite *ciphersuite.Suite) error {
	if err := requireSigning(record); err != nil {
		return err
	}
	if record.Suite != uint16(suite.ID) {
		return fmt.Errorf("%w cipher suite: %v", ErrOtherDevice, ciphersuite.ID(record.Suite))
	}
	credential, err := credentialOf(record)
	if err != nil {
		return err
	}
	if isX509 := credential.Type == keypackage.CredentialX509; isX509 != (l.Credential == manifest.X509) {
		return fmt.Errorf("%w credential", ErrOtherDevice)
	}
	if l.Credential == manifest.Basic && string(credential.Identity) != cmp.Or(l.Identity, l.Name) {
		return fmt.Errorf("%w identity in its credential", ErrOtherDevice)
	}
	return nil
}

// equip certifies the identity, if its line says so, and makes its key packages.
func (d *device) equip(ctx context.Context) error {
	if d.line.Credential == manifest.X509 {
		chain, err := d.certify(ctx)
		if err != nil || chain == nil {
			return err
		}
		_, notAfter := chain.Validity()
		d.result.ValidUntil = notAfter.UTC()
	}
	return d.keyPackages(ctx)
}

// certify returns the certificates of the device: those that the line names, if the file exists,
// else those that the device has, else those that the enrollment command returns. If there is no
// such command, the result has the request, and the chain is nil.
func (d *device) certify(ctx context.Context) (certificate.Chain, error) {
	credential, err := credentialOf(&d.record)
	if err != nil {
		return nil, err
	}
	chain, err := d.namedChain()
	switch {
	case err != nil:
		return nil, err
	case chain == nil && len(credential.Certificates) > 0:
		return credential.Chain()
	case chain == nil:
		chain, err = d.newChain(ctx)
	}
	if err != nil || chain == nil || bytes.Equal(keypackage.X509Credential(chain.DER()).Bytes(), d.record.Credential) {
		return chain, err
	}
	d.record, err = d.ImportCertificate(ctx, d.line.Name, chain)
	return chain, err
}

// namedChain reads the chain that the line names. A missing file is not an error.
func (d *device) namedChain() (certificate.Chain, error) {
	switch {
	case d.line.Certificate == "":
		return nil, nil
	case d.request.Chain == nil:
		return nil, requestf("the certificate %q cannot be read here", d.line.Certificate)
	}
	chain, err := d.request.Chain(d.line.Certificate)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return chain, err
}

// newChain makes a request for a certificate, and passes it to the enrollment command, if there is one.
func (d *device) newChain(ctx context.Context) (certificate.Chain, error) {
	id, err := d.OpenIdentity(ctx, &d.record)
	if err != nil {
		return nil, err
	}
	what, err := d.certificateOf(d.line)
	if err != nil {
		return nil, err
	}
	requested, err := d.requestCertificate(ctx, id, what)
	if err != nil {
		return nil, err
	}
	if len(d.settings.X509.Enroll.Command) == 0 {
		d.result.Status, d.result.Request = DeviceAwaiting, requested.PEM
		return nil, nil
	}
	return enroll.Run(ctx, d.settings, d.line.Name, requested.PEM)
}

// keyPackages makes the key packages that the device lacks, and reports all that it has.
func (d *device) keyPackages(ctx context.Context) error {
	var had []store.KeyPackage
	var err error
	if !d.isNew {
		if had, err = d.had(ctx); err != nil {
			return err
		}
	}
	if d.line.Custody == manifest.Device {
		return d.signFor(ctx, had)
	}
	if had, err = d.counted(ctx, had); err != nil {
		return err
	}
	if err := d.take(ctx, had, 0); err != nil {
		return err
	}
	return d.makeMissing(ctx, had)
}

// makeMissing makes the key packages that the line asks for and the device does not have.
func (d *device) makeMissing(ctx context.Context, had []store.KeyPackage) error {
	var have, last uint64
	for i := range had {
		if had[i].LastResort {
			last++
		} else {
			have++
		}
	}
	if have >= d.line.Count && (last > 0 || !d.line.LastResort) {
		return nil
	}
	request, err := d.ask(ctx)
	if err == nil && have < d.line.Count {
		err = d.generate(ctx, request, d.line.Count-have, false)
	}
	if err == nil && d.line.LastResort && last == 0 {
		err = d.generate(ctx, request, 1, true)
	}
	return err
}

// had returns the key packages that the identity signed and that have neither expired nor been
// retired.
func (d *device) had(ctx context.Context) ([]store.KeyPackage, error) {
	var out []store.KeyPackage
	now := d.now()
	for k, err := range d.store.KeyPackages(ctx, store.Filter{Identity: d.record.Name}) {
		if err != nil {
			return nil, err
		}
		if k.Version == d.record.Version && now.Before(k.NotAfter) && (isLive(k.State) || k.State == store.Reserved || k.State == store.Consumed) {
			out = append(out, k)
		}
	}
	return out, nil
}

// counted returns those key packages of the device that count for the line: those of custody
// release if the line has that custody, all of which must be for its key; else those whose private
// keys are kept here.
func (d *device) counted(ctx context.Context, had []store.KeyPackage) (out []store.KeyPackage, err error) {
	for i := range had {
		switch k := &had[i]; {
		case d.line.Custody == manifest.Release && k.Custody == vault.CustodyRelease:
			if err := d.inventory.CheckRelease(ctx, k, d.line.ReleaseKey, d.now()); err != nil {
				return nil, err
			}
			out = append(out, *k)
		case d.line.Custody != manifest.Release && isKept(k.Custody):
			out = append(out, *k)
		}
	}
	return out, nil
}

// signFor signs a key package of the keys that the device made, unless there is one.
func (d *device) signFor(ctx context.Context, had []store.KeyPackage) error {
	l := d.line
	for i := range had {
		kp, err := inventory.Public(&had[i])
		if err != nil {
			return err
		}
		if bytes.Equal(kp.InitKey, l.InitKey) && bytes.Equal(kp.LeafNode.EncryptionKey, l.EncryptionKey) {
			return d.take(ctx, had[i:i+1], 0)
		}
		if bytes.Equal(kp.InitKey, l.InitKey) {
			return fmt.Errorf("key package %v has the same init_key (RFC 9420, Section 10: each has its own)", keypackage.Ref(had[i].Ref))
		}
	}
	request, err := d.ask(ctx)
	if err != nil {
		return err
	}
	made, err := d.inventory.SignFor(ctx, request, l.InitKey, l.EncryptionKey)
	if err != nil {
		return err
	}
	return d.take(ctx, []store.KeyPackage{made}, 1)
}

// ask prepares the request to the inventory.
func (d *device) ask(ctx context.Context) (inventory.Request, error) {
	id, err := d.OpenIdentity(ctx, &d.record)
	if err != nil {
		return inventory.Request{}, err
	}
	p, err := policy.Of(d.settings, d.line.Name, d.rand)
	if err != nil {
		return inventory.Request{}, err
	}
	if id.Credential.Type == keypackage.CredentialX509 {
		if p.Roots, err = policy.Roots(d.settings.X509.Roots); err != nil {
			return inventory.Request{}, err
		}
	}
	return inventory.Request{
		Identity: id, Version: d.record.Version, Policy: p, Pending: d.out != nil, Now: d.now(),
		Custody: cmp.Or(d.line.Custody, d.settings.CustodyOf(d.line.Name)), Workers: d.workers, ReleaseKey: d.line.ReleaseKey,
		Batch: min(deviceBatch, d.settings.Store.Batch),
	}, nil
}

func (d *device) generate(ctx context.Context, request inventory.Request, n uint64, lastResort bool) error {
	request.Count, request.LastResort = n, lastResort
	_, err := d.inventory.Generate(ctx, request, func(batch []store.KeyPackage) error {
		return d.take(context.WithoutCancel(ctx), batch, len(batch))
	})
	return err
}

// take puts key packages into the result and counts the new ones. If there is a folder, it first
// writes the pending ones to it and publishes them. It hands private keys over last: that is
// recorded before Each gets the result, and the next run does it again.
func (d *device) take(ctx context.Context, batch []store.KeyPackage, made int) error {
	d.result.Made += made
	files, err := d.publish(ctx, batch)
	if err != nil {
		return err
	}
	first := len(d.result.KeyPackages)
	for i := range batch {
		k := &batch[i]
		d.result.KeyPackages = append(d.result.KeyPackages, ProvisionedKeyPackage{
			Ref: k.Ref, State: k.State, NotAfter: k.NotAfter, LastResort: k.LastResort, Custody: k.Custody, File: files[string(k.Ref)],
			Confirmed: k.Custody == vault.CustodyRelease && !k.Unconfirmed(),
		})
	}
	if d.line.Custody != manifest.Release {
		return nil
	}
	return d.handOver(ctx, batch, d.result.KeyPackages[first:])
}

// publish writes the pending key packages to the folder, if there is one, and returns the files by
// their refs.
func (d *device) publish(ctx context.Context, batch []store.KeyPackage) (map[string]string, error) {
	if d.out == nil {
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
	names, err := writeAll(d.out, pending)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFolder, err)
	}
	files := make(map[string]string, len(names))
	for i := range names {
		files[string(refs[i])] = names[i]
	}
	return files, d.store.Move(ctx, refs, []store.State{store.Pending}, store.Published, d.now())
}

// handOver seals, for the device, the private keys that the device has not confirmed yet, and puts
// them into its results. Without HandOver it only counts them.
func (d *device) handOver(ctx context.Context, batch []store.KeyPackage, results []ProvisionedKeyPackage) error {
	var records []store.KeyPackage
	var of []*ProvisionedKeyPackage
	for i := range batch {
		if batch[i].Unconfirmed() {
			records, of = append(records, batch[i]), append(of, &results[i])
		}
	}
	if !d.request.HandOver {
		d.result.Waiting += len(records)
		return nil
	}
	released, err := d.inventory.HandOver(ctx, records, d.line.ReleaseKey, d.now())
	for i := range released {
		kp, err := inventory.Public(&records[i])
		if err != nil {
			return err
		}
		of[i].Message, of[i].Released = kp.Message(), &released[i]
	}
	return err
}
