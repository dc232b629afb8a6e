package config

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Observe says where to serve metrics and the status page without client certificates, and how much
// they show.
type Observe struct {
	Listen     []string // tcp:LOOPBACK:PORT or unix:PATH
	Identities int      // how many have metrics of their own
	Interval   Duration // between surveys of the store, at least
}

func defaultObserve() Observe { return Observe{Identities: 1000, Interval: Duration(15 * time.Second)} }

func (o *Observe) fields() keys {
	return keys{
		"listen":     list(&o.Listen, text),
		"identities": number(&o.Identities, 0, 1000000),
		"interval":   duration(&o.Interval),
	}
}

func (o *Observe) validate(d *decoder) {
	for _, l := range o.Listen {
		kind, where, _ := strings.Cut(l, ":")
		if kind == "unix" && where != "" || kind == "tcp" && isLoopback(where) {
			continue
		}
		d.contentFault("server.observe.listen", "must begin with unix:, or be tcp: with a loopback address and a port, as tcp:127.0.0.1:9464: "+
			"it does not authenticate callers; server.listen serves the same to others under the operations metrics and status")
	}
	if o.Interval <= 0 {
		d.contentFault("server.observe.interval", "must be longer than 0")
	}
}

// isLoopback reports whether an address with a port is reachable from this machine only. A name is
// refused: others decide what it resolves to.
func isLoopback(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// validatePages notes operations that a caller is granted but could not use.
func (c *Caller) validatePages(d *decoder, path string) {
	shows := slices.ContainsFunc(c.Operations, func(op string) bool {
		a, _ := act.Lookup(act.Act(op))
		return a.Everybody
	})
	if shows && !slices.Contains(c.Identities, "*") {
		d.contentFault(path+".identities", `must have "*" if operations has metrics or status: they show all identities`)
	}
}
