package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/observe"
	"github.com/hsm-kp/hsm-kp/internal/server"
	"github.com/hsm-kp/hsm-kp/token"
)

// watchToken adds events to the observers of the token's config.
func watchToken(events *observe.Events) func(*token.Config) {
	return func(tc *token.Config) {
		tell := tc.Observe
		tc.Watch = events.Call
		tc.Observe = func(r token.Recovery) {
			tell(r)
			events.Recover(r)
		}
	}
}

// observer returns what exports the state of the service.
func (e *env) observer(events *observe.Events, s *server.Server) (*observe.Observer, error) {
	c := e.config
	return observe.New(observe.Config{
		Events: events, Store: e.store, Token: e.token, Ready: e.ready, Busy: s.Busy,
		Low:        func(identity string) int { return c.ReplenishOf(identity).Low },
		Ending:     min(time.Duration(c.Replenish.Ending), time.Duration(c.KeyPackages.Lifetime)/2), // as in replenish
		Schedule:   inventory.Schedule{MaxAge: time.Duration(c.WrappingKeys.MaxAge), MaxUses: c.WrappingKeys.MaxUses},
		Identities: c.Server.Observe.Identities, Interval: time.Duration(c.Server.Observe.Interval),
		Version: version(), Now: time.Now,
	})
}

// pages returns the pages that callers may be granted.
func pages(o *observe.Observer) []server.Page {
	return []server.Page{
		{Path: "/metrics", Operation: act.Metrics, Handler: o.Metrics()},
		{Path: "/status", Operation: act.Status, Handler: o.Status()},
	}
}

// showAt opens the listeners of server.observe and serves on them until ctx ends. The function
// that it returns waits for the end.
func (e *env) showAt(ctx context.Context, o *observe.Observer, log *slog.Logger) (wait func(), err error) {
	var listeners []net.Listener
	for _, where := range e.config.Server.Observe.Listen {
		l, err := listenAt(where)
		if err != nil {
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return nil, fmt.Errorf("listen at %s: %w", where, err)
		}
		listeners = append(listeners, l)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if len(listeners) == 0 {
			return
		}
		if err := observe.Serve(ctx, o.Handler(), listeners...); err != nil && !errors.Is(err, context.Canceled) {
			log.Error("observe", "error", err)
		}
	}()
	return func() { <-ended }, nil
}
