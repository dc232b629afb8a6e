package operator

import (
	"context"
	"encoding/pem"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
)

// RequestCertificateRequest says what to request in a certificate.
type RequestCertificateRequest struct {
	// Identity is the identity's name.
	Identity string
	// Next asks for the identity's next signature key, which is made if there is none yet.
	Next bool
	// Subject is a distinguished name in the form of RFC 4514. Nil takes what the config has for this
	// identity, or what the identity's certificate has, or what the config has for all.
	Subject *string
	// DNSNames, Emails and URIs are the alternative names. If all are empty, they are what the config
	// has for this identity, or what the identity's certificate has.
	DNSNames, Emails, URIs []string
}

// CertificateRequested is a request for a certificate, signed by the key that it is for.
type CertificateRequested struct {
	certificate.Request
	// PEM is the certification request of PKCS #10 (RFC 2986), in PEM (RFC 7468).
	PEM []byte
}

// RequestCertificate makes a certification request for an identity, signed with its key in the
// token. The trail has an entry about it.
func (o *Operator) RequestCertificate(ctx context.Context, r RequestCertificateRequest) (CertificateRequested, error) {
	current, err := o.record(ctx, r.Identity)
	if err != nil {
		return CertificateRequested{}, err
	}
	request, err := o.whatToCertify(&r, &current)
	if err != nil {
		return CertificateRequested{}, err
	}
	id, err := o.openToCertify(ctx, &current, r.Next)
	if err != nil {
		return CertificateRequested{}, err
	}
	return o.requestCertificate(ctx, id, request)
}

// requestCertificate signs a request for the key of an identity, and records that.
func (o *Operator) requestCertificate(ctx context.Context, id *identity.Identity, r certificate.Request) (CertificateRequested, error) {
	der, err := r.DER(id.Signer)
	if err != nil {
		return CertificateRequested{}, fmt.Errorf("identity %q: %w", id.Name, err)
	}
	entry := audit.Entry{
		Time: o.now(), Act: audit.Requested, Identity: id.Name, Detail: fmt.Sprintf("certificate for %.200s", r.Subject.String()),
	}
	if key, ok := id.Signer.(*signer.Key); ok {
		entry.KeyID = key.ID()
	}
	if err := o.store.Record(ctx, entry); err != nil {
		return CertificateRequested{}, err
	}
	return CertificateRequested{r, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}, nil
}

// whatToCertify puts a certificate's request together: each part from the first of these that has
// it: r, the config's identities, the certificate that the identity has, the rest of the config.
func (o *Operator) whatToCertify(r *RequestCertificateRequest, record *store.Identity) (certificate.Request, error) {
	out, err := renewal(record)
	if err != nil {
		return out, err
	}
	subject, own := o.subjectOf(record.Name)
	if r.Subject != nil {
		subject, own = *r.Subject, true
	}
	if own || len(out.Subject) == 0 {
		if out.Subject, err = certificate.ParseName(subject); err != nil {
			return out, requestf("%v", err)
		}
	}
	settings := o.settings.Identities[record.Name]
	for _, names := range []certificate.Request{
		{DNSNames: settings.DNSNames, Emails: settings.Emails, URIs: settings.URIs},
		{DNSNames: r.DNSNames, Emails: r.Emails, URIs: r.URIs},
	} {
		if len(names.DNSNames)+len(names.Emails)+len(names.URIs) > 0 {
			out.DNSNames, out.Emails, out.URIs = names.DNSNames, names.Emails, names.URIs
		}
	}
	if err := out.Check(); err != nil {
		return out, requestf("%v", err)
	}
	return out, nil
}

// subjectOf returns the subject that the config has for an identity, and whether it is for this
// identity alone.
func (o *Operator) subjectOf(name string) (subject string, own bool) {
	if own := o.settings.Identities[name].Subject; own != "" {
		return own, true
	}
	subject = "CN=" + certificate.EscapeValue(name)
	if all := o.settings.X509.Subject; all != "" {
		subject += "," + all
	}
	return subject, false
}

// renewal returns a request for the names in the certificate of an identity, if it has one.
func renewal(record *store.Identity) (certificate.Request, error) {
	credential, err := credentialOf(record)
	if err != nil {
		return certificate.Request{}, err
	}
	chain, err := chainOf(credential)
	if err != nil {
		return certificate.Request{}, fmt.Errorf("read the certificates of %q: %w", record.Name, err)
	}
	if len(chain) == 0 {
		return certificate.Request{}, nil
	}
	return certificate.Renewal(chain[0])
}

// openToCertify opens an identity, or its next version, which is made if there is none.
func (o *Operator) openToCertify(ctx context.Context, current *store.Identity, next bool) (*identity.Identity, error) {
	if !next {
		return o.OpenIdentity(ctx, current)
	}
	if err := o.checkStamp(ctx, current); err != nil {
		return nil, err
	}
	version, err := o.nextVersion(ctx, current.Name)
	if err == nil && version == nil {
		version, err = o.proposeNewKey(ctx, current)
	}
	if err != nil {
		return nil, err
	}
	return o.OpenIdentity(ctx, version)
}
