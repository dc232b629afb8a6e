package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// contentFault notes a fault of the field at path, unless its form is at fault already: then its
// content is unknown. The fault of a missing field has the line of its group.
func (d *decoder) contentFault(path, format string, args ...any) {
	line := 0
	for p := path; p != ""; p = parent(p) {
		if d.unfit[p] {
			return
		}
		if line == 0 {
			line = d.lines[p]
		}
	}
	d.faults = append(d.faults, Fault{line, path + " " + fmt.Sprintf(format, args...)})
}

// oneOf notes a fault of the group at path unless exactly one of its fields is set. A field whose
// form is at fault counts as set.
func (d *decoder) oneOf(path string, set map[string]bool) {
	var names []string
	n := 0
	for name, is := range set {
		if d.unfit[path+"."+name] {
			return
		}
		if names = append(names, name); is {
			n++
		}
	}
	if n != 1 {
		slices.Sort(names)
		d.contentFault(path, "must have exactly one of %s, it has %d", strings.Join(names, ", "), n)
	}
}

func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '.'), 0)]
}

// validate notes all faults of content.
func (c *Config) validate(d *decoder) {
	c.Token.validate(d)
	c.Store.validate(d)
	c.KeyPackages.validate(d)
	c.validateCustody(d)
	c.validateDirectories(d)
	c.Server.validate(d)
	if strings.ContainsAny(c.Audit.Origin, " \t\n+") {
		d.contentFault("audit.origin", "must have neither spaces nor +")
	}
	if c.X509.Enroll.Timeout <= 0 {
		d.contentFault("x509.enroll.timeout", "must be longer than 0")
	}
	if c.Welcome.Reservation <= 0 {
		d.contentFault("welcome.reservation", "must be longer than 0")
	}
}

func (c *Config) validateCustody(d *decoder) {
	validateCustodyOf(d, "key_packages.custody", c.KeyPackages.Custody)
	for name, i := range c.Identities {
		if i.Custody != "" {
			validateCustodyOf(d, "identities."+name+".custody", i.Custody)
		}
	}
	if c.KeyPackages.LastResort.MaxAge <= 0 {
		d.contentFault("key_packages.last_resort.max_age", "must be longer than 0")
	}
}

// validateCustodyOf refuses what cannot be a default custody: device and release need a device's
// keys.
func validateCustodyOf(d *decoder, path, custody string) {
	switch custody {
	case Wrapped, InToken:
	case "device", "release":
		d.contentFault(path, "must be wrapped or token: %s is for the lines of a manifest, which have the device's keys", custody)
	default:
		d.contentFault(path, "must be wrapped or token")
	}
}

func (t *Token) validate(d *decoder) {
	switch {
	case t.URI == "" && !d.unfit["token.uri"]:
		if t.Module == "" {
			d.contentFault("token.module", "is missing: the path of the PKCS#11 library")
		}
		d.oneOf("token", map[string]bool{"label": t.Label != "", "serial": t.Serial != "", "slot": t.Slot != nil})
	case t.URI != "" && !strings.HasPrefix(t.URI, "pkcs11:"):
		d.contentFault("token.uri", "must begin with pkcs11: (RFC 7512)")
	}
	if t.Timeout <= 0 {
		d.contentFault("token.timeout", "must be longer than 0")
	}
	t.validateVendor(d)
	t.PIN.validate(d, t.URI != "" || d.unfit["token.uri"])
}

// validate notes a fault unless the PIN has exactly one source. It may have none if there is a URI,
// which can name one.
func (p *PIN) validate(d *decoder, uri bool) {
	if uri && *p == (PIN{}) {
		return
	}
	if p.Env != "" && !variableName.MatchString(p.Env) {
		d.contentFault("token.pin.env", "must be the name of an environment variable")
	}
	d.oneOf("token.pin", map[string]bool{
		"env": p.Env != "", "file": p.File != "", "fd": p.FD != nil, "systemd": p.Systemd != "", "prompt": p.Prompt,
	})
}

// HasPassword reports whether a URL has a password or may have one, as a malformed URL may.
func HasPassword(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return strings.Contains(text, "@") || strings.Contains(text, "password")
	}
	if _, set := u.User.Password(); set {
		return true
	}
	parameters, err := url.ParseQuery(u.RawQuery)
	return err != nil || parameters.Has("password") || parameters.Has("sslpassword")
}

func (s *Store) validate(d *decoder) {
	path, ok := strings.CutPrefix(s.URL, "sqlite:")
	database := strings.HasPrefix(s.URL, "postgres://") || strings.HasPrefix(s.URL, "postgresql://")
	switch {
	case database && HasPassword(s.URL):
		d.contentFault("store.url", "has a password in it: it belongs in a file that PGPASSFILE names, or in PGPASSWORD")
	case !database && (!ok || path == ""):
		d.contentFault("store.url", "must be sqlite:PATH, or postgres://USER@HOST/DATABASE")
	}
}

func (k *KeyPackages) validate(d *decoder) {
	if k.Suite == "" {
		d.contentFault("key_packages.suite", "is empty")
	}
	if k.Lifetime <= 0 {
		d.contentFault("key_packages.lifetime", "must be longer than 0")
	}
}
