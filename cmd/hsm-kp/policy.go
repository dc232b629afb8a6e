package main

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// loadConfig reads a config and makes the experimental suites known that it has
// enabled.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	return cfg, registerSuites(cfg)
}

func registerSuites(cfg *config.Config) error {
	if !cfg.Experimental.Enabled {
		return nil
	}
	var faults []error
	for i, s := range cfg.Experimental.Suites {
		err := ciphersuite.Register(ciphersuite.Experiment{
			ID: ciphersuite.ID(s.Number), Name: s.Name, KEM: s.KEM, AEAD: s.AEAD, Hash: s.Hash, Signature: s.Signature,
		})
		if err != nil {
			faults = append(faults, usagef("experimental.suites[%d]: %v", i, err))
		}
	}
	return errors.Join(faults...)
}

// knowSuites makes the experimental suites of the config known to a command that
// needs no config: where the command line or the environment names one. One that cannot
// be read is a warning.
func knowSuites(c *cli.Context, u *ui) {
	path, named := configPath(c)
	if !named {
		return
	}
	if _, err := loadConfig(path); err != nil {
		u.warnf("no experimental cipher suites are known: %v", err)
	}
}

// policyOf turns the config into what the identity called name works with. An
// error joins all faults.
func policyOf(cfg *config.Config, name string) (identity.Policy, error) {
	kp, own := &cfg.KeyPackages, cfg.Identities[name]
	var faults []error
	p := identity.Policy{
		Lifetime:       time.Duration(kp.Lifetime),
		Backdate:       time.Duration(kp.Backdate),
		LeafExtensions: extensionsOf(kp.LeafExtensions),
		Extensions:     extensionsOf(kp.Extensions),
		Required:       requiredOf(kp.Required),
	}
	if _, err := ciphersuite.Parse(kp.Suite); err != nil {
		faults = append(faults, usagef("key_packages.suite: %v", err))
	}
	where, capabilities := "key_packages.capabilities", kp.Capabilities
	if own.Capabilities != nil {
		where, capabilities = fmt.Sprintf("identities.%q.capabilities", name), *own.Capabilities
	}
	supported, err := supportedOf(where, capabilities)
	p.Supported = supported
	if own.ApplicationID != "" { // in place of one for all
		p.LeafExtensions = slices.DeleteFunc(p.LeafExtensions, func(e keypackage.Extension) bool {
			return e.Type == keypackage.ExtensionApplicationID
		})
		p.LeafExtensions = append(p.LeafExtensions, keypackage.ApplicationID([]byte(own.ApplicationID)))
	}
	if kp.GREASE {
		p.GREASE = rand.Reader
	}
	return p, errors.Join(append(faults, err)...)
}

// checkPolicies reports all faults of the config that policyOf finds, for every
// identity that it names.
func checkPolicies(cfg *config.Config) error {
	p, err := policyOf(cfg, "")
	faults := []error{err}
	if err := keypackage.CheckExtensions(p.LeafExtensions, p.Extensions); err != nil {
		faults = append(faults, usagef("key_packages: %v", err))
	}
	if _, err := loadRoots(cfg.X509.Roots); err != nil {
		faults = append(faults, err)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Identities)) {
		own := cfg.Identities[name]
		if err := identity.CheckName(name); err != nil {
			faults = append(faults, usagef("identities.%q: %v", name, err))
		}
		if own.Capabilities != nil {
			_, err := supportedOf(fmt.Sprintf("identities.%q.capabilities", name), *own.Capabilities)
			faults = append(faults, err)
		}
		if _, err := certificate.ParseName(own.Subject); err != nil {
			faults = append(faults, usagef("identities.%q.subject: %v", name, err))
		}
		if r := (certificate.Request{DNSNames: own.DNSNames, Emails: own.Emails, URIs: own.URIs}); len(own.DNSNames)+len(own.Emails)+len(own.URIs) > 0 {
			if err := r.Check(); err != nil {
				faults = append(faults, usagef("identities.%q: %v", name, err))
			}
		}
	}
	if _, err := lookupPeers(cfg.KeyPackages.Peers); err != nil {
		faults = append(faults, usagef("key_packages.peers %v", err))
	}
	if _, err := certificate.ParseName(cfg.X509.Subject); err != nil {
		faults = append(faults, usagef("x509.subject: %v", err))
	}
	return errors.Join(faults...)
}

func supportedOf(where string, c config.Capabilities) (keypackage.Capabilities, error) {
	var out keypackage.Capabilities
	var faults []error
	for _, name := range c.CipherSuites {
		s, err := ciphersuite.Parse(name)
		if err != nil {
			faults = append(faults, usagef("%s.cipher_suites: %v", where, err))
			continue
		}
		out.CipherSuites = append(out.CipherSuites, s.ID)
	}
	for _, n := range c.Extensions {
		e := keypackage.ExtensionType(n)
		if e.Default() {
			faults = append(faults, usagef("%s.extensions: %v is a default type, which RFC 9420, Section 7.2, forbids to list", where, e))
		}
		out.Extensions = append(out.Extensions, e)
	}
	for _, n := range c.Proposals {
		t := keypackage.ProposalType(n)
		if t.Default() {
			faults = append(faults, usagef("%s.proposals: %v is a default type, which RFC 9420, Section 7.2, forbids to list", where, t))
		}
		out.Proposals = append(out.Proposals, t)
	}
	return out, errors.Join(faults...)
}

func requiredOf(r config.Required) keypackage.RequiredCapabilities {
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

// loadRoots reads trust anchors from a PEM file; none from no file.
func loadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("read roots: %v", err)
	}
	roots, err := certificate.ParsePEM(text)
	if err != nil {
		return nil, usagef("read roots %s: %v", path, err)
	}
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	return pool, nil
}
