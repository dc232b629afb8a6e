package config

import (
	"fmt"
	"strings"
)

// validator collects faults of content with their lines.
type validator struct {
	lines  map[string]int
	faults []Fault
}

// fault notes a fault of the field at path. A field that is missing is noted at
// the line of the group that it is missing from.
func (v *validator) fault(path, format string, args ...any) {
	line := 0
	for p := path; ; {
		if l, ok := v.lines[p]; ok {
			line = l
			break
		}
		i := strings.LastIndexByte(p, '.')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	v.faults = append(v.faults, Fault{line, path + " " + fmt.Sprintf(format, args...)})
}

// validate returns all faults of content.
func (c *Config) validate(lines map[string]int) []Fault {
	v := &validator{lines: lines}
	c.Token.validate(v)
	c.Store.validate(v)
	c.KeyPackages.validate(v)
	return v.faults
}

func (t *Token) validate(v *validator) {
	if t.URI == "" {
		if t.Module == "" {
			v.fault("token.module", "is missing: the path of the PKCS#11 library")
		}
		if n := count(t.Label != "", t.Serial != "", t.Slot != nil); n != 1 {
			v.fault("token", "must have exactly one of label, serial and slot, it has %d", n)
		}
	}
	if n := t.PIN.count(); n > 1 || n == 0 && t.URI == "" {
		v.fault("token.pin", "must have exactly one of env, file, fd, systemd and prompt, it has %d", n)
	}
	if t.PIN.FD != nil && *t.PIN.FD < 0 {
		v.fault("token.pin.fd", "is negative")
	}
	if t.Sessions < 1 || t.Sessions > 1024 {
		v.fault("token.sessions", "is %d, it must be 1 to 1024", t.Sessions)
	}
	for name := range t.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			v.fault("token.environment", "has a name that no variable can have: %q", name)
		}
	}
}

// Count returns how many sources are named.
func (p *PIN) count() int {
	return count(p.Env != "", p.File != "", p.FD != nil, p.Systemd != "", p.Prompt)
}

func count(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

func (s *Store) validate(v *validator) {
	path, ok := strings.CutPrefix(s.URL, "sqlite:")
	if !ok || path == "" {
		v.fault("store.url", "must be sqlite:PATH")
	}
	if s.Batch < 1 || s.Batch > 10000 {
		v.fault("store.batch", "is %d, it must be 1 to 10000", s.Batch)
	}
}

func (k *KeyPackages) validate(v *validator) {
	if k.Suite == "" {
		v.fault("key_packages.suite", "is empty")
	}
	if k.Lifetime <= 0 {
		v.fault("key_packages.lifetime", "must be longer than nothing")
	}
	if k.Backdate < 0 {
		v.fault("key_packages.backdate", "is negative")
	}
}
