package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/observe"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/server"
)

func serveCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "serve",
		Category: categoryKeep,
		Usage:    "serve the network API to the callers that the config lists",
		Description: `Serves gRPC, gRPC-Web and JSON over HTTP at the listeners of server.listen: over TCP with
mutual TLS, over Unix sockets to the users that the kernel names, and over sockets that systemd
hands over. Requests that server.callers does not grant are refused and recorded in the audit
trail. See docs/API.md.

SIGTERM and Ctrl-C end it: requests in progress have server.grace to complete. SIGHUP reads the
certificates again; they are also read when they change. The log, on standard error, is JSON, one
line for each request.

Examples:
   hsm-kp serve
   hsm-kp --config /etc/hsm-kp/hsm-kp.yaml serve`,
		Action: with(u, func(c *cli.Context, e *env) error { return e.serve(c.Context) }),
	}
}

const (
	// maintenance is how often refusals are flushed, certificates are checked for changes, and
	// the store is swept.
	maintenance = time.Minute
	// readyWithin is how long the token and the store have to answer.
	readyWithin = 3 * time.Second
)

func (e *env) serve(ctx context.Context) error {
	if len(e.config.Server.Listen) == 0 {
		return usagef("serve: server.listen in the config names no listener")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(e.ui.errOut, nil))
	events := observe.NewEvents(time.Now)
	e.tokenChange = watchToken(events)
	e.scheduled = true
	e.operate()
	if _, err := e.Token(ctx); err != nil {
		return err
	}
	collectLess()
	s := server.New(server.Config{
		Operator: e.Operator.Reporting(operator.Silent{}), Rules: rulesOf(&e.config.Server), Limits: limitsOf(&e.config.Server),
		Log: log, Observe: events.Request,
	})
	o, err := e.observer(events, s)
	if err != nil {
		return err
	}
	defer o.Close()
	s.Pages = pages(o)
	listeners, files, err := listen(&e.config.Server)
	if err != nil {
		return err
	}
	shown, err := e.showAt(ctx, o, log)
	if err != nil {
		return err
	}
	defer func() { stop(); shown() }()
	go e.runMaintenance(ctx, s, files, log)
	go e.keepWatch(ctx, log)
	context.AfterFunc(ctx, func() { notifySystemd("STOPPING=1") })
	log.Info("serving", "listen", e.config.Server.Listen, "observe", e.config.Server.Observe.Listen, "callers", len(e.config.Server.Callers))
	notifySystemd("READY=1")
	err = s.Serve(ctx, s.Handler(e.ready), time.Duration(e.config.Server.Grace), listeners...)
	log.Info("stopped")
	return errors.Join(err, s.Flush(context.WithoutCancel(ctx), true))
}

// collectLess sets GOGC to 400 unless the environment sets it. Some tens of MB are live, and at
// 100 the garbage collector took a tenth of the time of a signature.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// ready reports whether the token and the store answer.
func (e *env) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := e.token.Random(ctx, make([]byte, 1)); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if _, err := e.store.WrappingKeys(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// runMaintenance runs the scheduled jobs once a minute until ctx ends; on SIGHUP it reads the
// certificates at once.
func (e *env) runMaintenance(ctx context.Context, s *server.Server, files *server.TLS, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(maintenance)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if reload(files, log) {
				log.Info("certificates reloaded")
			}
			continue
		case <-tick.C:
		}
		reload(files, log)
		for what, f := range map[string]func(context.Context) error{
			"record refusals":      func(ctx context.Context) error { return s.Flush(ctx, false) },
			"sweep":                e.tidy,
			"rotate wrapping keys": e.RotateWhenDue,
		} {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				log.Error(what, "error", err)
			}
		}
	}
}

// tidy sweeps, so that nothing waits until a person runs `hsm-kp sweep`.
func (e *env) tidy(ctx context.Context) error {
	_, err := e.Sweep(ctx, operator.SweepRequest{Unfinished: operator.UnfinishedAfter})
	return err
}

// reload reads the certificates again and reports whether they are in use.
func reload(files *server.TLS, log *slog.Logger) bool {
	if files == nil {
		return false
	}
	err := files.Reload()
	if err != nil {
		log.Error("reload certificates: the previous ones stay in use", "error", err)
	}
	return err == nil
}

// rulesOf returns the rules of the config, by name.
func rulesOf(c *config.Server) []server.Rule {
	var out []server.Rule
	for _, name := range slices.Sorted(maps.Keys(c.Callers)) {
		r := c.Callers[name]
		rule := server.Rule{
			Name: name, URIs: r.URIs, DNSNames: r.DNSNames, Emails: r.Emails, Subjects: r.Subjects, UIDs: r.UIDs, GIDs: r.GIDs,
			Identities: r.Identities, Quota: r.Quota, Period: time.Duration(r.Period),
			Rate: server.Rate{PerSecond: r.PerSecond, Burst: r.Burst},
		}
		for _, op := range r.Operations {
			rule.Operations = append(rule.Operations, act.Act(op))
		}
		out = append(out, rule)
	}
	return out
}

func limitsOf(c *config.Server) server.Limits {
	return server.Limits{
		MessageBytes: c.Limits.MessageBytes, Concurrent: c.Limits.Concurrent, Batch: uint32(c.Limits.Batch),
		Request: time.Duration(c.Limits.Request), Read: time.Duration(c.Limits.Read),
		Rate: server.Rate{PerSecond: c.Limits.PerSecond, Burst: c.Limits.Burst}, Connections: c.Limits.Connections,
	}
}
