package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
)

// place is where a store is: a file of SQLite, or a database of PostgreSQL.
type place struct {
	path string // of the file
	url  string // of the database; empty for a file
}

var (
	// errNoStore reports a store that init has not made yet.
	errNoStore = errors.New("it does not exist")
	// errURLPassword reports a password where others can read it.
	errURLPassword error = &usageError{"the store's URL has a password in it"}
)

// placeOf returns the place that a store's URL names, or the config's if the URL is empty.
func placeOf(cfg *config.Config, text string) (place, error) {
	if text == "" {
		text = cfg.Store.URL
	}
	if postgres.Names(text) {
		if config.HasPassword(text) {
			return place{}, errURLPassword
		}
		if _, err := url.Parse(text); err != nil {
			return place{}, usagef("the store's URL is malformed")
		}
		return place{url: text}, nil
	}
	path, ok := strings.CutPrefix(text, "sqlite:")
	if !ok || path == "" {
		return place{}, usagef("the store's URL must be sqlite:PATH or postgres://…, not %q", text)
	}
	return place{path: path}, nil
}

// String names the store to a user.
func (p place) String() string {
	if p.url != "" {
		return postgres.Redact(p.url)
	}
	return p.path
}

// open opens the store. The store must exist unless the caller asks to make it.
func (p place) open(ctx context.Context, create bool) (s store.Store, err error) {
	if p.url != "" {
		s, err = postgres.Open(ctx, p.url, postgres.Options{Create: create})
		if errors.Is(err, store.ErrNotFound) {
			err = errNoStore
		}
	} else if _, missing := os.Stat(p.path); !create && errors.Is(missing, os.ErrNotExist) {
		err = errNoStore
	} else {
		s, err = sqlite.Open(ctx, p.path, sqlite.Options{Create: create})
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", p, err)
	}
	return s, nil
}

// beside returns a name for files that belong with the store: beside its file, or beside the
// config if the store is a database.
func (p place) beside(configPath string) string {
	if p.url == "" {
		return p.path
	}
	return filepath.Join(filepath.Dir(configPath), "hsm-kp")
}
