// Package directories makes the clients of the config's directories.
package directories

import (
	"context"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/token"
)

// Clients are the clients of the config's directories. Acts that run at once share them, so that
// the rate limit of a directory applies to all acts together. Clients is safe for concurrent use.
type Clients struct {
	version  string // of the program, for the directories' logs
	mu       sync.Mutex
	clients  map[string]directory.Publisher // that serve all identities, by directory
	services map[string]*directory.OpenMLS
}

// New returns Clients, which makes each client on first use. The version is the program's, for the
// logs of directories.
func New(version string) *Clients {
	return &Clients{version: version, clients: make(map[string]directory.Publisher), services: make(map[string]*directory.OpenMLS)}
}

// Client returns the client of a directory that has no accounts of identities: a folder, or one over HTTP.
func (d *Clients) Client(dir *config.Directory) (directory.Publisher, error) {
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

// Service returns the client of a delivery service, which all identities share.
func (d *Clients) Service(dir *config.Directory) (*directory.OpenMLS, error) {
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

// options returns the options of the config.
func (d *Clients) options(dir *config.Directory) directory.Options {
	return directory.Options{
		URL: dir.URL, Headers: dir.Headers, Bearer: bearer(dir.Bearer), CA: dir.CA, Certificate: dir.Certificate, Key: dir.Key,
		Timeout: time.Duration(dir.Timeout), Deadline: time.Duration(dir.Deadline), Rate: float64(dir.Rate), Burst: dir.Burst,
		Concurrency: dir.Concurrency, MaxResponse: int64(dir.MaxResponse), UserAgent: "hsm-kp/" + d.version,
	}
}

// bearer reads a bearer token from the source in the config, as PINs are read.
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
