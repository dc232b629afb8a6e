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

// refusedSuffix makes the name of the file that remembers refused PINs, beside the
// store.
const refusedSuffix = ".refused-pins"

// openToken logs in to the token that cfg names. Variables that the module
// reads are set first: a module reads them when it is initialised. PINs that it refuses are
// remembered in a file whose name begins with beside. change has the last word on how it is
// opened, unless it is nil.
func openToken(ctx context.Context, u *ui, cfg *config.Config, beside string, force bool, change func(*token.Config)) (*token.Token, error) {
	if cfg.Token.Module == "" && cfg.Token.URI == "" {
		return nil, usagef("a token is needed, and no config says which: name one with --config or HSM_KP_CONFIG")
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

// tokenConfig turns the config's fields, and what its URI says, into what the
// token package takes. Its errors are faults of the config.
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
		err = errors.New("neither the URI nor token.pin says where the PIN comes from")
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

// outage tells the operator when the token is gone, what is done about it, and when it is
// back: once, whatever the number of operations that meet it.
type outage struct {
	ui   *ui
	mu   sync.Mutex
	step token.Step // the last that was told; StepNone: the token is there
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
