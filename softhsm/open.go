package softhsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/hsm-kp/hsm-kp/token"
)

// confVariable names the file that SoftHSM reads its configuration from.
const confVariable = "SOFTHSM2_CONF"

// environment guards SOFTHSM2_CONF. SoftHSM reads the variable whenever it is
// initialized: when the first token is opened, and again when a Token recovers. So the
// variable stays set after Open, and one process uses one installation at a time.
var environment struct {
	sync.Mutex
	conf  string         // the configuration of users
	users []*token.Token // tokens that Open returned; some may be closed
}

// Open opens the token of the installation, logs in with its PIN, and returns the
// token.Token, which the caller closes. Module, Serial and PIN of cfg get their values from
// Config if they are zero; the other fields, such as Sessions, are for token.Open.
//
// Open sets SOFTHSM2_CONF in this process and leaves it set. SoftHSM has one
// configuration a process, so Open fails with ErrInUse while a token of another
// installation is open. Several tokens of one installation may be open at once. Other
// errors are those of token.Open; after an error the variable is what it was before.
//
// Open may be called by several goroutines at once. While it runs, nothing else in the
// process should change SOFTHSM2_CONF.
func (i *Installation) Open(ctx context.Context, cfg token.Config) (*token.Token, error) {
	t, err := i.open(ctx, i.complete(cfg))
	if err != nil {
		return nil, fmt.Errorf("open SoftHSM token in %q: %w", i.Dir, err)
	}
	return t, nil
}

// complete sets the fields of cfg that name the token and are zero.
func (i *Installation) complete(cfg token.Config) token.Config {
	own := i.Config()
	if cfg.Module == "" {
		cfg.Module = own.Module
	}
	if cfg.Serial == "" {
		cfg.Serial = own.Serial
	}
	if cfg.PIN == nil {
		cfg.PIN = own.PIN
	}
	return cfg
}

func (i *Installation) open(ctx context.Context, cfg token.Config) (*token.Token, error) {
	environment.Lock()
	defer environment.Unlock()
	restore, err := useEnvironment(i.ConfPath)
	if err != nil {
		return nil, err
	}
	t, err := token.Open(ctx, cfg)
	if errors.Is(err, token.ErrNoToken) && i.hidden(ctx, cfg) {
		err = ErrInUse
	}
	if err != nil {
		return nil, errors.Join(err, restore())
	}
	environment.conf = i.ConfPath
	environment.users = append(environment.users, t)
	return t, nil
}

// hidden reports whether the module shows tokens, and not the one of the installation:
// then it was initialized with another configuration.
func (i *Installation) hidden(ctx context.Context, cfg token.Config) bool {
	list, err := token.List(ctx, cfg.Module, cfg.Quirks)
	return err == nil && slices.ContainsFunc(list, func(t token.Info) bool { return t.Initialized }) &&
		!slices.ContainsFunc(list, func(t token.Info) bool { return t.Serial == i.Serial })
}

// useEnvironment sets SOFTHSM2_CONF, unless Open has returned a token of another
// installation that is still open: the error is ErrInUse then. restore sets the variable
// to what it was. The caller holds the lock.
func useEnvironment(conf string) (restore func() error, err error) {
	environment.users = slices.DeleteFunc(environment.users, func(t *token.Token) bool { return t.Usage().Over })
	if len(environment.users) > 0 && environment.conf != conf {
		return nil, ErrInUse
	}
	before, was := os.LookupEnv(confVariable)
	if err := os.Setenv(confVariable, conf); err != nil {
		return nil, err
	}
	return func() error {
		if was {
			return os.Setenv(confVariable, before)
		}
		return os.Unsetenv(confVariable)
	}, nil
}
