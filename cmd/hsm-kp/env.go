package main

import (
	"context"
	"crypto/rand"
	"runtime"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
)

// env holds what a command works with: the config, the store, and the token from
// the time that the command needs it. Commands that only read the store never
// open the token.
type env struct {
	*operator.Operator
	ui         *ui
	config     *config.Config
	configPath string
	place      place
	forceLogin bool
	store      store.Store
	token      *token.Token
	// tokenChange changes the config of the token before it is opened. It may be nil.
	tokenChange func(*token.Config)
	scheduled   bool // the process sweeps and rotates at intervals
}

// openEnv reads the config that the command line names and opens its store.
func openEnv(c *cli.Context, u *ui) (*env, error) {
	path, named := configPath(c)
	cfg, err := loadConfig(path)
	if configMissing(err) && !named && c.String("store") != "" {
		cfg, err = config.Default(), nil // an auditor has only the store
	}
	if err != nil {
		return nil, err
	}
	e, err := openEnvWith(c.Context, u, cfg, path, c.String("store"))
	if err == nil {
		e.forceLogin = c.Bool(forceLogin)
	}
	return e, err
}

// with makes an action of f: it requires the named arguments, opens the store that the
// config names, and closes what was opened.
func with(u *ui, f func(*cli.Context, *env) error, arguments ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := wantArgs(c, arguments...); err != nil {
			return err
		}
		e, err := openEnv(c, u)
		if err != nil {
			return err
		}
		defer e.close()
		return f(c, e)
	}
}

// openEnvWith opens the store that url names, or the config's if url is
// empty. The store must exist: init makes it.
func openEnvWith(ctx context.Context, u *ui, cfg *config.Config, configPath, url string) (*env, error) {
	e := &env{ui: u, config: cfg, configPath: configPath}
	var err error
	if e.place, err = placeOf(cfg, url); err != nil {
		return nil, err
	}
	if e.store, err = e.place.open(ctx, false); err != nil {
		return nil, err
	}
	e.operate()
	return e, nil
}

// processors returns how many processors Go uses.
func processors() int { return runtime.GOMAXPROCS(0) }

// operate makes the operator over the store and the token.
func (e *env) operate() {
	e.Operator = operator.New(operator.Config{
		Settings: e.config, Store: e.store, OpenToken: e.openToken, Rand: rand.Reader, Now: time.Now, Processors: processors(), Scheduled: e.scheduled, Version: version(),
	}, e.ui)
}

// close closes what was opened. It shows errors and does not return them: all
// results are in the store by then.
func (e *env) close() {
	if e.token != nil {
		if err := e.token.Close(); err != nil {
			e.ui.warnf("close token: %v", err)
		}
	}
	if e.store != nil {
		if err := e.store.Close(); err != nil {
			e.ui.warnf("close store: %v", err)
		}
	}
}

// openToken logs in to the configured token, once for each command.
func (e *env) openToken(ctx context.Context) (*token.Token, error) {
	if e.token != nil {
		return e.token, nil
	}
	t, err := openToken(ctx, e.ui, e.config, e.place.beside(e.configPath), e.forceLogin, e.tokenChange)
	if err == nil {
		e.token = t
	}
	return t, err
}
