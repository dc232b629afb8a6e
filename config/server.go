package config

import (
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Server says where the network service listens, and what it grants to whom.
type Server struct {
	Listen  []string // tcp:HOST:PORT, unix:PATH or systemd:NAME
	TLS     TLS
	Callers map[string]Caller
	Limits  Limits
	Grace   Duration // for requests under way when it stops
	Observe Observe
}

// TLS has the absolute paths of the PEM files of mutual TLS.
type TLS struct {
	Certificate, Key string
	ClientCA         string
	CRL              string // or empty
}

// Caller grants operations on identities to callers that have one of its names.
type Caller struct {
	URIs, DNSNames, Emails, Subjects []string
	UIDs, GIDs                       []uint32
	Identities                       []string // * matches any text
	Operations                       []string // names of acts
	Quota                            uint64   // 0: none
	Period                           Duration
	PerSecond                        int // 0 for no limit
	Burst                            int // 0 for PerSecond
}

// Limits bounds what callers can ask for.
type Limits struct {
	MessageBytes int
	Concurrent   int
	Batch        int
	Request      Duration
	Read         Duration
	PerSecond    int // 0 for no limit
	Burst        int // 0 for PerSecond
	Connections  int
}

func defaultServer() Server {
	return Server{
		Limits:  Limits{MessageBytes: 4 << 20, Concurrent: 256, Batch: 1000, Request: Duration(time.Minute), Read: Duration(30 * time.Second), Connections: 1024},
		Grace:   Duration(30 * time.Second),
		Observe: defaultObserve(),
	}
}

func (s *Server) fields() keys {
	return keys{
		"listen": list(&s.Listen, text),
		"tls": group(keys{
			"certificate": text(&s.TLS.Certificate),
			"key":         text(&s.TLS.Key),
			"client_ca":   text(&s.TLS.ClientCA),
			"crl":         text(&s.TLS.CRL),
		}),
		"callers": named(&s.Callers, (*Caller).fields),
		"limits": group(keys{
			"message_bytes": number(&s.Limits.MessageBytes, 1, math.MaxInt32),
			"concurrent":    number(&s.Limits.Concurrent, 1, 1<<20),
			"batch":         number(&s.Limits.Batch, 1, 1<<20),
			"request":       duration(&s.Limits.Request),
			"read":          duration(&s.Limits.Read),
			"per_second":    number(&s.Limits.PerSecond, 0, 1<<20),
			"burst":         number(&s.Limits.Burst, 0, 1<<20),
			"connections":   number(&s.Limits.Connections, 1, 1<<20),
		}),
		"grace":   duration(&s.Grace),
		"observe": group(s.Observe.fields()),
	}
}

func (c *Caller) fields() keys {
	userID := func(to *uint32) field {
		return func(d *decoder, path string, n *yaml.Node) {
			var id uint64
			number(&id, 0, math.MaxUint32)(d, path, n)
			*to = uint32(id)
		}
	}
	return keys{
		"uris":       list(&c.URIs, text),
		"dns_names":  list(&c.DNSNames, text),
		"emails":     list(&c.Emails, text),
		"subjects":   list(&c.Subjects, text),
		"uids":       list(&c.UIDs, userID),
		"gids":       list(&c.GIDs, userID),
		"identities": list(&c.Identities, text),
		"operations": list(&c.Operations, text),
		"quota":      number(&c.Quota, 0, math.MaxInt64),
		"period":     duration(&c.Period),
		"per_second": number(&c.PerSecond, 0, 1<<20),
		"burst":      number(&c.Burst, 0, 1<<20),
	}
}

// resolve makes paths absolute.
func (s *Server) resolve(from func(string) string) {
	for _, p := range []*string{&s.TLS.Certificate, &s.TLS.Key, &s.TLS.ClientCA, &s.TLS.CRL} {
		*p = from(*p)
	}
	for _, list := range [][]string{s.Listen, s.Observe.Listen} {
		for i, l := range list {
			if path, ok := strings.CutPrefix(l, "unix:"); ok {
				list[i] = "unix:" + from(path)
			}
		}
	}
}

func (s *Server) validate(d *decoder) {
	for _, l := range s.Listen {
		kind, where, _ := strings.Cut(l, ":")
		switch {
		case kind == "unix" && where != "", kind == "systemd" && where != "":
		case kind == "tcp":
			if _, _, err := net.SplitHostPort(where); err != nil {
				d.contentFault("server.listen", "must have a host and a port after tcp:, as tcp:0.0.0.0:8443")
			}
		default:
			d.contentFault("server.listen", "must begin with tcp:, unix: or systemd:")
		}
	}
	s.Observe.validate(d)
	if s.Limits.Request <= 0 {
		d.contentFault("server.limits.request", "must be longer than 0")
	}
	if s.Limits.Read <= 0 {
		d.contentFault("server.limits.read", "must be longer than 0")
	}
	if s.Limits.Burst > 0 && s.Limits.PerSecond == 0 {
		d.contentFault("server.limits.burst", "needs per_second")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Callers)) {
		c := s.Callers[name]
		c.validate(d, "server.callers."+name)
	}
}

func (c *Caller) validate(d *decoder, path string) {
	if len(c.URIs)+len(c.DNSNames)+len(c.Emails)+len(c.Subjects)+len(c.UIDs)+len(c.GIDs) == 0 {
		d.contentFault(path, "must have one of uris, dns_names, emails, subjects, uids and gids: otherwise it matches nobody")
	}
	if len(c.Identities) == 0 || len(c.Operations) == 0 {
		d.contentFault(path, "must have identities and operations: otherwise it grants nothing")
	}
	c.validatePages(d, path)
	for _, op := range c.Operations {
		if !act.IsGranted(op) {
			d.contentFault(path+".operations", "has one that is not among %s", strings.Join(act.Granted(), ", "))
		}
	}
	if c.Quota > 0 && c.Period <= 0 {
		d.contentFault(path+".period", "must be longer than 0 if quota is set")
	}
	if c.Burst > 0 && c.PerSecond == 0 {
		d.contentFault(path+".burst", "needs per_second")
	}
}
