package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directories"
	"github.com/hsm-kp/hsm-kp/token"
)

// refusedSuffix ends the name of the file that records refused PINs, beside the
// store.
const refusedSuffix = ".refused-pins"

// openToken logs in to the token that cfg names. It first sets the variables that the module
// reads, because a module reads them when it is initialized. Refused PINs are recorded in a file
// whose name begins with beside. change, unless it is nil, is the last to change the config.
func openToken(ctx context.Context, u *ui, cfg *config.Config, beside string, force bool, change func(*token.Config)) (*token.Token, error) {
	if cfg.Token.Module == "" && cfg.Token.URI == "" {
		return nil, usagef("the command needs a token, and no config names one: give a config with --config or HSM_KP_CONFIG")
	}
	for name, value := range cfg.Token.Environment {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("set %s for the module: %w", name, err)
		}
	}
	tc, err := tokenConfig(cfg)
	if err != nil {
		return nil, err
	}
	tc.ForceLogin = force
	tc.Observe = (&outage{ui: u}).observe
	if _, err := os.Stat(filepath.Dir(beside)); err == nil {
		tc.Refusals = token.RefusalFile(beside + refusedSuffix)
	}
	if change != nil {
		change(&tc)
	}
	return token.Open(ctx, tc)
}

// tokenConfig converts the config's fields and its URI to the config of the
// token package. Its errors are faults of the config.
func tokenConfig(cfg *config.Config) (token.Config, error) {
	c := cfg.Token
	tc := token.Config{
		Module:   c.Module,
		Label:    c.Label,
		Serial:   c.Serial,
		Slot:     c.Slot,
		PIN:      directories.PINSource(c.PIN),
		Sessions: c.Sessions,
		Timeout:  time.Duration(c.Timeout),
		Patience: time.Duration(c.Recovery),
		Quirks:   quirks(c.Quirks),
	}
	if tc.Patience == 0 {
		tc.Patience = -1
	}
	if c.URI == "" {
		return tc, nil
	}
	uri, err := token.ParseURI(c.URI)
	if err == nil {
		err = uri.Apply(&tc)
	}
	if err == nil && tc.Module == "" {
		err = errors.New("neither the URI nor token.module names the PKCS#11 library")
	}
	if err == nil && tc.PIN == nil {
		err = errors.New("neither the URI nor token.pin gives a source of the PIN")
	}
	if err != nil {
		return token.Config{}, usagef("token.uri: %v", err)
	}
	return tc, nil
}

func quirks(q config.Quirks) token.Quirks {
	set := func(b *bool) bool { return b != nil && *b }
	var gone []token.RV
	for _, code := range q.GoneCodes {
		gone = append(gone, token.RV(code))
	}
	return token.Quirks{
		InitArgs:     q.InitArgs,
		LibraryCalls: set(q.LibraryCalls),
		TokenObjects: set(q.TokenObjects),
		KWP:          q.KWP,
		UnwrapPoint:  set(q.UnwrapPoint),
		LocalUntold:  set(q.LocalUntold),
		OneAtATime:   set(q.OneAtATime),
		TokenNonce:   set(q.TokenNonce),
		Gone:         gone,
	}
}

// outage warns the operator when the token is lost, says what is done about it, and when it is
// back: once, however many operations fail.
type outage struct {
	ui   *ui
	mu   sync.Mutex
	step token.Step // the last that was reported; StepNone: the token works
}

func (o *outage) observe(r token.Recovery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case r.Step == token.StepDone:
		if o.step != token.StepNone {
			o.ui.warnf("the token is back after %v", r.Since.Round(time.Millisecond))
		}
		o.step = token.StepNone
	case r.Step > o.step:
		o.ui.warnf("the token: %v: %v", r.Cause, r.Step)
		o.step = r.Step
	}
}
