package directory

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// OpenMLS publishes to the OpenMLS delivery service:
//
//	POST /clients/register             ClientKeyPackages -> auth token; 409: the client is known
//	POST /clients/key_packages/{id}    ClientKeyPackages and auth token -> 200, 400, 401, 404
//	GET  /clients/key_packages/{id}    -> ClientKeyPackages; 204: the client is not known
//
// The service does not report which key packages it already has when they are sent again, so the
// client first looks up those that it may have. A key package that was fetched from the service
// meanwhile is not found, and is sent again.
type OpenMLS struct{ *client }

// NewOpenMLS returns a client. It reads the files that o names.
func NewOpenMLS(o Options) (*OpenMLS, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return &OpenMLS{c}, nil
}

// Account stores the token by which the service lets a client change its key packages.
type Account interface {
	// Token returns the token, or nil if there is none.
	Token(ctx context.Context) ([]byte, error)
	// Keep stores a token and replaces the previous one, if any.
	Keep(ctx context.Context, token []byte) error
}

// For returns a Publisher for the client with the given id, which is the content of its credential.
func (o *OpenMLS) For(id []byte, a Account) Publisher { return &member{o, id, a} }

// Left returns the KeyPackageRefs that the service has of a client, or none if it does not know the
// client.
func (o *OpenMLS) Left(ctx context.Context, id []byte) ([]keypackage.Ref, error) {
	at, err := o.at("clients", "key_packages", base64.URLEncoding.EncodeToString(id))
	if err != nil {
		return nil, err
	}
	var refs []keypackage.Ref
	err = retry(ctx, o.Deadline, func(ctx context.Context, _ int) error {
		a, err := o.do(ctx, http.MethodGet, at, "", nil, nil)
		if err != nil || a.status == http.StatusNoContent {
			return err
		}
		refs, err = parseClientKeyPackages(a.body)
		return err
	})
	return refs, err
}

func (o *OpenMLS) at(path ...string) (string, error) {
	at, err := url.JoinPath(o.URL, path...)
	if err != nil {
		return "", fmt.Errorf("address of the directory: %w", err)
	}
	return at, nil
}

// register registers the client and returns its token.
func (o *OpenMLS) register(ctx context.Context, items []Item) (token []byte, err error) {
	at, err := o.at("clients", "register")
	if err != nil {
		return nil, err
	}
	a, err := o.do(ctx, http.MethodPost, at, octets, clientKeyPackages(items), nil)
	if isStatus(err, http.StatusConflict) {
		return nil, ErrKnown
	}
	if err != nil {
		return nil, err
	}
	return parseAuthToken(a.body)
}

// add adds key packages to those of a known client.
func (o *OpenMLS) add(ctx context.Context, id []byte, items []Item, token []byte) error {
	at, err := o.at("clients", "key_packages", base64.URLEncoding.EncodeToString(id))
	if err != nil {
		return err
	}
	_, err = o.do(ctx, http.MethodPost, at, octets, appendAuthToken(clientKeyPackages(items), token), nil)
	switch {
	case isStatus(err, http.StatusNotFound):
		return ErrUnknownClient
	case isStatus(err, http.StatusUnauthorized):
		return fmt.Errorf("hsm-kp's token of the client is not the directory's: %w", err)
	}
	return err
}

// octets is the media type of requests.
const octets = "application/octet-stream"

func isStatus(err error, status int) bool {
	s := (*StatusError)(nil)
	return errors.As(err, &s) && s.Status == status
}

// member publishes for one client.
type member struct {
	service *OpenMLS
	id      []byte
	account Account
}

// Publish implements Publisher. It sends all items in one request. If the service refuses that, it
// sends each in a request of its own, so that a faulty item does not hold up the others.
func (m *member) Publish(ctx context.Context, items []Item) []error {
	if len(items) == 0 {
		return nil
	}
	err := m.publish(ctx, items)
	errs := slices.Repeat([]error{err}, len(items))
	if !errors.Is(err, ErrRefused) || len(items) == 1 {
		return errs
	}
	for i := range items {
		errs[i] = m.publish(ctx, items[i:i+1])
	}
	return errs
}

// publish sends items until the service has all of them. It looks up items that were sent without
// an answer before it sends them again.
func (m *member) publish(ctx context.Context, items []Item) error {
	looked := !slices.ContainsFunc(items, func(i Item) bool { return i.Again })
	return retry(ctx, m.service.Deadline, func(ctx context.Context, attempt int) error {
		if !looked || attempt > 0 {
			left, err := m.missing(ctx, items)
			if err != nil {
				return err
			}
			items, looked = left, true
		}
		if len(items) == 0 {
			return nil
		}
		return m.send(ctx, items)
	})
}

// missing returns the items that the service does not have.
func (m *member) missing(ctx context.Context, items []Item) ([]Item, error) {
	there, err := m.service.Left(ctx, m.id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(items), func(i Item) bool {
		return slices.ContainsFunc(there, func(ref keypackage.Ref) bool { return slices.Equal(ref, i.Ref) })
	}), nil
}

// send adds items to those of the client, and first registers the client if it is unknown: the
// service forgets all clients when it restarts.
func (m *member) send(ctx context.Context, items []Item) error {
	token, err := m.account.Token(ctx)
	if err != nil {
		return err
	}
	if len(token) > 0 {
		err := m.service.add(ctx, m.id, items, token)
		if !errors.Is(err, ErrUnknownClient) {
			return err
		}
	}
	if token, err = m.service.register(ctx, items); err != nil {
		return err
	}
	if err := m.account.Keep(context.WithoutCancel(ctx), token); err != nil {
		return fmt.Errorf("keep the token that the directory gave: %w", err)
	}
	return nil
}
