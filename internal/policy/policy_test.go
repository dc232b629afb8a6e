package policy

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestAnIdentitysOwnSettingsReplaceThoseOfAll(t *testing.T) {
	cfg := config.Default()
	cfg.KeyPackages.GREASE = true
	cfg.KeyPackages.LeafExtensions = []config.Extension{{Type: uint16(keypackage.ExtensionApplicationID), Data: []byte("all")}}
	cfg.Identities = map[string]config.Identity{"relay": {
		ApplicationID: "relay", Capabilities: &config.Capabilities{CipherSuites: []string{"1"}},
	}}
	for name, want := range map[string]string{"alice": "all", "relay": string(keypackage.ApplicationID([]byte("relay")).Data)} {
		p, err := Of(cfg, name, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.LeafExtensions) != 1 || string(p.LeafExtensions[0].Data) != want || p.GREASE == nil {
			t.Errorf("Of(%s) = %+v, want the application id %q, and GREASE", name, p, want)
		}
		if own := len(p.Supported.CipherSuites) == 1; own != (name == "relay") {
			t.Errorf("Of(%s) supports %v", name, p.Supported.CipherSuites)
		}
	}
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	cfg := config.Default()
	cfg.KeyPackages.Suite = "none"
	cfg.KeyPackages.Peers = []string{"nobody"}
	cfg.X509.Roots = filepath.Join(t.TempDir(), "missing.pem")
	cfg.Identities = map[string]config.Identity{
		"a\n":   {},
		"relay": {Subject: "relay", Capabilities: &config.Capabilities{Extensions: []uint16{1}, Proposals: []uint16{1}}},
	}
	err := Check(cfg)
	var request *act.RequestError
	if !errors.As(err, &request) {
		t.Fatalf("Check() err = %v, want a RequestError", err)
	}
	for _, want := range []string{"key_packages.suite", "key_packages.peers", "read roots", `identities."a\n"`, `identities."relay".subject`, ".extensions", ".proposals"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Check() err = %v, want a fault of %s too", err, want)
		}
	}
	if err := Check(config.Default()); err != nil {
		t.Errorf("Check() of the defaults err = %v, want nil", err)
	}
}

func TestRootsAreReadFromPEM(t *testing.T) {
	if pool, err := Roots(""); pool != nil || err != nil {
		t.Errorf("Roots() of no file = %v, %v, want none", pool, err)
	}
	path := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(path, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Roots(path); err == nil {
		t.Error("Roots() of no PEM err = nil")
	}
}

func TestASuiteIsNamedOrTheConfigs(t *testing.T) {
	cfg := config.Default()
	cfg.Experimental.Suites = []config.Suite{{Name: "XWING", Number: 0xF042}}
	for name, want := range map[string]ciphersuite.ID{"": 2, "1": 1, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519": 1} {
		if s, err := Suite(cfg, name); err != nil || s.ID != want {
			t.Errorf("Suite(%q) = %v, %v, want %d", name, s, err, want)
		}
	}
	for name, want := range map[string]string{"0xF042": "experimental.enabled", "XWING": "experimental.enabled", "99": "it has\n1  MLS_128"} {
		if _, err := Suite(cfg, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Suite(%q) err = %v, want one with %q", name, err, want)
		}
	}
}
