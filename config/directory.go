package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// The kinds of directories.
const (
	OpenMLS = "openmls" // the OpenMLS delivery service
	HTTP    = "http"    // one POST a key package
	Spool   = "spool"   // a folder
)

// Directory says where key packages are published.
type Directory struct {
	Name        string
	Type        string // OpenMLS, HTTP or Spool
	URL         string // for OpenMLS and HTTP
	Path        string // absolute; for Spool
	Headers     map[string]string
	Bearer      Secret // empty for no token
	CA          string // absolute path, or empty
	Certificate string // absolute path, or empty
	Key         string // absolute path, or empty
	Timeout     Duration
	Deadline    Duration
	Lease       Duration
	Rate        int // requests a second; 0 for no limit
	Burst       int
	Concurrency int
	Batch       int // key packages in a request, or in a transaction of the store
	MaxResponse int // bytes
}

// Secret says where a secret comes from; at most one field is set.
type Secret struct {
	Env     string
	File    string // absolute path
	Systemd string
}

// Replenish says how many key packages an identity should have in its directory.
type Replenish struct {
	Directory  string // a name in Directories; empty for the only one
	Low, High  int
	Ending     Duration // key packages that end sooner do not count
	LastResort bool
}

// OwnReplenish holds the settings of one identity; nil fields take the general ones.
type OwnReplenish struct {
	Directory string
	Low, High *int
}

func defaultDirectory() Directory {
	return Directory{
		Timeout: Duration(30 * time.Second), Deadline: Duration(2 * time.Minute), Lease: Duration(5 * time.Minute),
		Rate: 50, Burst: 10, Concurrency: 4, Batch: 50, MaxResponse: 1 << 20,
	}
}

func defaultReplenish() Replenish {
	return Replenish{Low: 20, High: 50, Ending: Duration(14 * 24 * time.Hour), LastResort: true}
}

// directory decodes a directory.
func directory(to *Directory) field {
	*to = defaultDirectory()
	return group(keys{
		"name":    text(&to.Name),
		"type":    text(&to.Type),
		"url":     text(&to.URL),
		"path":    text(&to.Path),
		"headers": headers(&to.Headers),
		"bearer": group(keys{
			"env":     text(&to.Bearer.Env),
			"file":    text(&to.Bearer.File),
			"systemd": text(&to.Bearer.Systemd),
		}),
		"ca":           text(&to.CA),
		"certificate":  text(&to.Certificate),
		"key":          text(&to.Key),
		"timeout":      duration(&to.Timeout),
		"deadline":     duration(&to.Deadline),
		"lease":        duration(&to.Lease),
		"rate":         number(&to.Rate, 0, 100000),
		"burst":        number(&to.Burst, 1, 100000),
		"concurrency":  number(&to.Concurrency, 1, 256),
		"batch":        number(&to.Batch, 1, 1000),
		"max_response": number(&to.MaxResponse, 1024, 1<<30),
	})
}

func (r *Replenish) fields() keys {
	return keys{
		"directory":   text(&r.Directory),
		"low":         number(&r.Low, 0, 1000000),
		"high":        number(&r.High, 0, 1000000),
		"ending":      duration(&r.Ending),
		"last_resort": truth(&r.LastResort),
	}
}

func (r *OwnReplenish) fields() keys {
	return keys{"directory": text(&r.Directory), "low": optional(&r.Low, 1000000), "high": optional(&r.High, 1000000)}
}

// DirectoryOf returns the directory called name, or the only directory if name is empty.
func (c *Config) DirectoryOf(name string) (Directory, bool) {
	if name == "" && len(c.Directories) == 1 {
		return c.Directories[0], true
	}
	i := slices.IndexFunc(c.Directories, func(d Directory) bool { return d.Name == name })
	if i < 0 {
		return Directory{}, false
	}
	return c.Directories[i], true
}

// ReplenishOf returns how many key packages an identity should have.
func (c *Config) ReplenishOf(identity string) Replenish {
	r, own := c.Replenish, c.Identities[identity].Replenish
	if own.Directory != "" {
		r.Directory = own.Directory
	}
	if own.Low != nil {
		r.Low = *own.Low
	}
	if own.High != nil {
		r.High = *own.High
	}
	return r
}

func (c *Config) validateDirectories(d *decoder) {
	seen := make(map[string]bool)
	for i := range c.Directories {
		path, dir := fmt.Sprintf("directories[%d]", i), &c.Directories[i]
		if dir.Name == "" {
			d.contentFault(path+".name", "is missing")
		}
		if seen[dir.Name] {
			d.contentFault(path+".name", "is already the name of another directory")
		}
		seen[dir.Name] = true
		dir.validate(d, path)
	}
	c.validateReplenish(d, "replenish", c.Replenish)
	for _, name := range slices.Sorted(maps.Keys(c.Identities)) {
		if c.Identities[name].Replenish != (OwnReplenish{}) {
			c.validateReplenish(d, fmt.Sprintf("identities.%q.replenish", name), c.ReplenishOf(name))
		}
	}
}

func (c *Config) validateReplenish(d *decoder, path string, r Replenish) {
	if r.Low > r.High {
		d.contentFault(path+".low", "must not be more than high, which is %d", r.High)
	}
	if _, known := c.DirectoryOf(r.Directory); r.Directory != "" && !known {
		d.contentFault(path+".directory", "must be the name of one of directories")
	}
}

func (dir *Directory) validate(d *decoder, path string) {
	switch dir.Type {
	case Spool:
		if dir.Path == "" {
			d.contentFault(path+".path", "is missing: the folder")
		}
	case OpenMLS, HTTP:
		dir.validateURL(d, path)
	default:
		d.contentFault(path+".type", "must be openmls, http or spool")
	}
	if dir.Bearer != (Secret{}) {
		d.oneOf(path+".bearer", map[string]bool{"env": dir.Bearer.Env != "", "file": dir.Bearer.File != "", "systemd": dir.Bearer.Systemd != ""})
	}
	if (dir.Certificate == "") != (dir.Key == "") {
		d.contentFault(path, "must have both certificate and key, or neither")
	}
	if dir.Timeout <= 0 || dir.Deadline < dir.Timeout {
		d.contentFault(path+".deadline", "must not be shorter than timeout, and timeout must be longer than 0")
	}
	if dir.Lease < 2*dir.Deadline {
		d.contentFault(path+".lease", "must be twice as long as deadline, or longer")
	}
}

// validateURL also refuses a URL over which a token would be sent in the clear.
func (dir *Directory) validateURL(d *decoder, path string) {
	u, err := url.Parse(dir.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		d.contentFault(path+".url", "must be https://HOST/PATH")
	case u.User != nil:
		d.contentFault(path+".url", "must have no password: see bearer and certificate")
	case u.Scheme == "http" && dir.Bearer != (Secret{}) && !loopback(u.Hostname()):
		d.contentFault(path+".url", "must be https: the bearer token would go over the network in the clear")
	}
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// headerName is a token of RFC 9110, Section 5.6.2; headerValue has no control characters.
var (
	headerName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	headerValue = regexp.MustCompile(`^[ -~]*$`)
)

// ownHeaders are set by hsm-kp or have a field of their own.
var ownHeaders = []string{"authorization", "content-length", "content-type", "host", "idempotency-key", "user-agent"}

// headers decodes a group of HTTP headers, each with a text.
func headers(to *map[string]string) field {
	return func(d *decoder, path string, n *yaml.Node) {
		of, values := make(keys), make(map[string]*string)
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			switch {
			case !headerName.MatchString(name):
				d.fault(path, n.Content[i], "has an invalid header name")
				return
			case slices.Contains(ownHeaders, strings.ToLower(name)):
				d.fault(path, n.Content[i], "must not have %s; a token belongs in bearer", name)
				return
			case values[name] == nil:
				values[name] = new(string)
				of[name] = text(values[name])
			}
		}
		group(of)(d, path, n)
		*to = make(map[string]string, len(values))
		for name, value := range values {
			if !headerValue.MatchString(*value) {
				d.fault(path, n, "must have values of printable ASCII")
			}
			(*to)[name] = *value
		}
	}
}
