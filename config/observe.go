package config

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Observe says where metrics and the status page are served without client certificates, and
// how much is shown.
type Observe struct {
	Listen     []string // tcp:LOOPBACK:PORT or unix:PATH
	Identities int      // that have metrics of their own
	Interval   Duration // between questions to the store, at least
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
			"it asks nobody who they are; to others, server.listen serves the same under the operations metrics and status")
	}
	if o.Interval <= 0 {
		d.contentFault("server.observe.interval", "must be longer than nothing")
	}
}

// isLoopback reports whether an address with a port is one of this machine alone. A name is
// not: what it stands for is somebody else's to say.
func isLoopback(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// validatePages finds operations that a caller is granted and cannot use.
func (c *Caller) validatePages(d *decoder, path string) {
	shows := slices.ContainsFunc(c.Operations, func(op string) bool {
		a, _ := act.Lookup(act.Act(op))
		return a.Everybody
	})
	if shows && !slices.Contains(c.Identities, "*") {
		d.contentFault(path+".identities", `must have "*" where operations have metrics or status: they show all identities`)
	}
}
