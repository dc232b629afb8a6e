package operator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
)

// directories are the clients of the config's directories. Acts that run at once share them, so
// that a rate is the directory's, whoever publishes there.
type directories struct {
	version  string // of the program, for the directories' logs
	mu       sync.Mutex
	clients  map[string]directory.Publisher // that serve all identities, by directory
	services map[string]*directory.OpenMLS
}

func newDirectories(version string) *directories {
	return &directories{version: version, clients: make(map[string]directory.Publisher), services: make(map[string]*directory.OpenMLS)}
}

// client returns the client of a directory for an identity.
func (o *Operator) client(ctx context.Context, record *store.Identity, dir config.Directory) (directory.Publisher, error) {
	if dir.Type != config.OpenMLS {
		return o.directories.client(&dir)
	}
	service, err := o.directories.service(&dir)
	if err != nil {
		return nil, err
	}
	return o.member(ctx, service, record, dir.Name)
}

// client returns the client of a directory that knows no identities.
func (d *directories) client(dir *config.Directory) (directory.Publisher, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.clients[dir.Name]; ok {
		return c, nil
	}
	var c directory.Publisher
	var err error
	if dir.Type == config.Spool {
		c, err = directory.OpenSpool(dir.Path)
	} else {
		c, err = directory.NewHTTP(d.options(dir))
	}
	if err == nil {
		d.clients[dir.Name] = c
	}
	return c, err
}

// service returns the client of a delivery service, which all identities share.
func (d *directories) service(dir *config.Directory) (*directory.OpenMLS, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.services[dir.Name]; ok {
		return s, nil
	}
	s, err := directory.NewOpenMLS(d.options(dir))
	if err == nil {
		d.services[dir.Name] = s
	}
	return s, err
}

// member returns the Publisher of an identity in a delivery service. Its token there is sealed
// under the wrapping key, so that this opens the PKCS#11 token.
func (o *Operator) member(ctx context.Context, service *directory.OpenMLS, record *store.Identity, name string) (directory.Publisher, error) {
	id, err := clientID(record)
	if err != nil {
		return nil, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return service.For(id, &account{o, inv, store.Account{Identity: record.Name, Directory: name, Client: id}}), nil
}

// clientID returns what a delivery service knows an identity by: the content of its
// credential.
func clientID(record *store.Identity) ([]byte, error) {
	if _, err := keypackage.ParseCredential(record.Credential); err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	r := wire.NewReader(record.Credential)
	r.Uint16() // credential_type
	return r.Vector(), r.Finish()
}

// account keeps the token of an identity in a delivery service in the store, sealed.
type account struct {
	operator  *Operator
	inventory *inventory.Inventory
	record    store.Account
}

// Token implements directory.Account.
func (a *account) Token(ctx context.Context) ([]byte, error) {
	token, err := a.inventory.AccountToken(ctx, a.record.Directory, a.record.Client)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return token, err
}

// Keep implements directory.Account.
func (a *account) Keep(ctx context.Context, token []byte) error {
	record := a.record
	record.CreatedAt = a.operator.now().UTC()
	return a.inventory.KeepAccount(ctx, record, token)
}

// options are those of the config.
func (d *directories) options(dir *config.Directory) directory.Options {
	return directory.Options{
		URL: dir.URL, Headers: dir.Headers, Bearer: bearer(dir.Bearer), CA: dir.CA, Certificate: dir.Certificate, Key: dir.Key,
		Timeout: time.Duration(dir.Timeout), Deadline: time.Duration(dir.Deadline), Rate: float64(dir.Rate), Burst: dir.Burst,
		Concurrency: dir.Concurrency, MaxResponse: int64(dir.MaxResponse), UserAgent: "hsm-kp/" + d.version,
	}
}

// bearer reads a bearer token from where the config says, as PINs are read.
func bearer(s config.Secret) func(context.Context) (string, error) {
	source := PINSource(config.PIN{Env: s.Env, File: s.File, Systemd: s.Systemd})
	if source == nil {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		secret, err := source.Read(ctx)
		if err != nil {
			return "", err
		}
		defer secret.Clear()
		return string(secret.Reveal()), nil
	}
}

// PINSource returns the source of a secret that the config names, or nil.
func PINSource(p config.PIN) token.PINSource {
	switch {
	case p.Env != "":
		return token.Env(p.Env)
	case p.File != "":
		return token.File(p.File)
	case p.FD != nil:
		return token.FD(*p.FD)
	case p.Systemd != "":
		return token.Systemd(p.Systemd)
	case p.Prompt:
		return token.Prompt("PIN of the token: ")
	}
	return nil
}
