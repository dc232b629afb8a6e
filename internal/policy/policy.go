// Package policy converts settings of the config to policies of identities and key packages. An
// error is an act.RequestError that names the setting.
package policy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/profile"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Of returns the policy of the config for the identity with a name. An error joins all faults.
func Of(cfg *config.Config, name string, rand io.Reader) (identity.Policy, error) {
	kp, own := &cfg.KeyPackages, cfg.Identities[name]
	var faults []error
	p := identity.Policy{
		Lifetime:       time.Duration(kp.Lifetime),
		Backdate:       time.Duration(kp.Backdate),
		LeafExtensions: extensionsOf(kp.LeafExtensions),
		Extensions:     extensionsOf(kp.Extensions),
		Required:       Required(kp.Required),
	}
	if _, err := ciphersuite.Parse(kp.Suite); err != nil {
		faults = append(faults, act.Requestf("key_packages.suite: %v", err))
	}
	where, capabilities := "key_packages.capabilities", kp.Capabilities
	if own.Capabilities != nil {
		where, capabilities = fmt.Sprintf("identities.%q.capabilities", name), *own.Capabilities
	}
	supported, err := supportedOf(where, capabilities)
	p.Supported = supported
	if own.ApplicationID != "" { // it replaces the one for all
		p.LeafExtensions = slices.DeleteFunc(p.LeafExtensions, func(e keypackage.Extension) bool {
			return e.Type == keypackage.ExtensionApplicationID
		})
		p.LeafExtensions = append(p.LeafExtensions, keypackage.ApplicationID([]byte(own.ApplicationID)))
	}
	if kp.GREASE {
		p.GREASE = rand
	}
	return p, errors.Join(append(faults, err)...)
}

// Check returns all faults of the config that Of finds, for every identity that it names.
func Check(cfg *config.Config) error {
	p, err := Of(cfg, "", nil)
	faults := []error{err}
	if err := keypackage.CheckExtensions(p.LeafExtensions, p.Extensions); err != nil {
		faults = append(faults, act.Requestf("key_packages: %v", err))
	}
	if _, err := Roots(cfg.X509.Roots); err != nil {
		faults = append(faults, err)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Identities)) {
		own := cfg.Identities[name]
		if err := identity.CheckName(name); err != nil {
			faults = append(faults, act.Requestf("identities.%q: %v", name, err))
		}
		if own.Capabilities != nil {
			_, err := supportedOf(fmt.Sprintf("identities.%q.capabilities", name), *own.Capabilities)
			faults = append(faults, err)
		}
		if _, err := certificate.ParseName(own.Subject); err != nil {
			faults = append(faults, act.Requestf("identities.%q.subject: %v", name, err))
		}
		if r := (certificate.Request{DNSNames: own.DNSNames, Emails: own.Emails, URIs: own.URIs}); len(own.DNSNames)+len(own.Emails)+len(own.URIs) > 0 {
			if err := r.Check(); err != nil {
				faults = append(faults, act.Requestf("identities.%q: %v", name, err))
			}
		}
	}
	if _, err := Peers(cfg.KeyPackages.Peers); err != nil {
		faults = append(faults, act.Requestf("key_packages.peers %v", err))
	}
	if _, err := certificate.ParseName(cfg.X509.Subject); err != nil {
		faults = append(faults, act.Requestf("x509.subject: %v", err))
	}
	return errors.Join(faults...)
}

func supportedOf(where string, c config.Capabilities) (keypackage.Capabilities, error) {
	var out keypackage.Capabilities
	var faults []error
	for _, name := range c.CipherSuites {
		s, err := ciphersuite.Parse(name)
		if err != nil {
			faults = append(faults, act.Requestf("%s.cipher_suites: %v", where, err))
			continue
		}
		out.CipherSuites = append(out.CipherSuites, s.ID)
	}
	for _, n := range c.Extensions {
		e := keypackage.ExtensionType(n)
		if e.Default() {
			faults = append(faults, act.Requestf("%s.extensions: %v is a default type, which RFC 9420, Section 7.2, forbids to list", where, e))
		}
		out.Extensions = append(out.Extensions, e)
	}
	for _, n := range c.Proposals {
		t := keypackage.ProposalType(n)
		if t.Default() {
			faults = append(faults, act.Requestf("%s.proposals: %v is a default type, which RFC 9420, Section 7.2, forbids to list", where, t))
		}
		out.Proposals = append(out.Proposals, t)
	}
	return out, errors.Join(faults...)
}

// Required returns what the config, or a command line, requires of the members of a group.
func Required(r config.Required) keypackage.RequiredCapabilities {
	return keypackage.RequiredCapabilities{
		Extensions:  convert[keypackage.ExtensionType](r.Extensions),
		Proposals:   convert[keypackage.ProposalType](r.Proposals),
		Credentials: convert[keypackage.CredentialType](r.Credentials),
	}
}

func convert[T ~uint16](numbers []uint16) []T {
	var out []T
	for _, n := range numbers {
		out = append(out, T(n))
	}
	return out
}

func extensionsOf(list []config.Extension) []keypackage.Extension {
	var out []keypackage.Extension
	for _, e := range list {
		out = append(out, keypackage.Extension{Type: keypackage.ExtensionType(e.Type), Data: e.Data})
	}
	return out
}

// Roots reads trust anchors from a PEM file. An empty path is no file, and no anchors.
func Roots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, act.Requestf("read roots: %v", err)
	}
	roots, err := certificate.ParsePEM(text)
	if err != nil {
		return nil, act.Requestf("read roots %s: %v", path, err)
	}
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	return pool, nil
}

// Peers returns the profiles with these names, or all for the name "all".
func Peers(names []string) ([]*profile.Profile, error) {
	var peers []*profile.Profile
	for _, name := range names {
		if strings.TrimSpace(name) == "all" {
			return profile.All(), nil
		}
		p, ok := profile.Lookup(strings.TrimSpace(name))
		if !ok {
			return nil, fmt.Errorf("names %q, which is not one of %s", name, strings.Join(profile.Names(), ", "))
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// Suite returns the cipher suite with a name or a number, or the config's for an empty name. The
// error is an act.RequestError.
func Suite(cfg *config.Config, name string) (*ciphersuite.Suite, error) {
	if name == "" {
		name = cfg.KeyPackages.Suite
	}
	s, err := ciphersuite.Parse(name)
	if err != nil && switchedOff(&cfg.Experimental, name) {
		return nil, act.Requestf("cipher suite %s is experimental, and experimental.enabled is not true in the config", name)
	}
	if err != nil {
		return nil, act.Requestf("%v; it has\n%s", err, suiteList())
	}
	return s, nil
}

// switchedOff reports whether the config describes the suite with a name or a number, and does not
// enable it.
func switchedOff(e *config.Experimental, name string) bool {
	return !e.Enabled && slices.ContainsFunc(e.Suites, func(s config.Suite) bool {
		number, err := strconv.ParseUint(name, 0, 16)
		return strings.EqualFold(s.Name, name) || err == nil && uint16(number) == s.Number
	})
}

// suiteList names the suites, one a line.
func suiteList() string {
	var lines []string
	for _, s := range ciphersuite.All() {
		lines = append(lines, fmt.Sprintf("%d  %s", uint16(s.ID), s.Name))
	}
	return strings.Join(lines, "\n")
}
