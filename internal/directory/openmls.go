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
// The service does not say which key packages it has when it is sent them again: what may be
// there already is looked for first. One that somebody took from it meanwhile is not found,
// and is sent again.
type OpenMLS struct{ *client }

// NewOpenMLS returns a client. It reads the files that o names.
func NewOpenMLS(o Options) (*OpenMLS, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return &OpenMLS{c}, nil
}

// Account keeps the token by which the service lets a client change its key packages.
type Account interface {
	// Token returns the token, or nothing where there is none.
	Token(ctx context.Context) ([]byte, error)
	// Keep keeps a token in the place of the one before, if there was one.
	Keep(ctx context.Context, token []byte) error
}

// For returns a Publisher for the client with an id, which is the content of its credential.
func (o *OpenMLS) For(id []byte, a Account) Publisher { return &member{o, id, a} }

// Left returns the KeyPackageRefs that the service has of a client; none where it does not
// know it.
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

// register makes the client known, and returns its token.
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

// add adds key packages to those of a client that is known.
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
		return fmt.Errorf("the token that hsm-kp has of the client is not the directory's: %w", err)
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

// Publish implements Publisher. All items go in one request. Where the service refuses that,
// each goes in one of its own, so that one that is at fault does not hold up the others.
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

// publish sends items until the service has all of them. What was sent without an answer is
// looked for before it is sent again.
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

// missing returns the items that the service has not.
func (m *member) missing(ctx context.Context, items []Item) ([]Item, error) {
	there, err := m.service.Left(ctx, m.id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(items), func(i Item) bool {
		return slices.ContainsFunc(there, func(ref keypackage.Ref) bool { return slices.Equal(ref, i.Ref) })
	}), nil
}

// send adds items to those of the client, and makes it known first where it is not: the
// service forgets all clients when it is started anew.
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
