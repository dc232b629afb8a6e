package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// small is a config file with the required fields only.
const small = "token: {module: lib.so, label: prod, pin: {env: PIN}}\n"

func parseText(text string) (*Config, error) {
	return Parse(strings.NewReader(text), "/etc/hsm-kp")
}

// faultsOf returns the faults of text, one a line.
func faultsOf(t *testing.T, text string) []string {
	t.Helper()
	c, err := parseText(text)
	e, ok := errors.AsType[*Error](err)
	if !ok || c != nil {
		t.Fatalf("Parse(%q) = %v, %v, want an Error alone", text, c, err)
	}
	if e.Cause != nil {
		return []string{e.Cause.Error()}
	}
	var all []string
	for _, f := range e.Faults {
		all = append(all, f.String())
	}
	return all
}

func TestDefaultsFillWhatIsNotThere(t *testing.T) {
	for _, text := range []string{small, small + "store:\nkey_packages: {lifetime: , capabilities: ~}\nunwrap: {}\n"} {
		got, err := parseText(text)
		if err != nil {
			t.Fatalf("Parse(%q) err = %v, want nil", text, err)
		}
		want := Default()
		want.Token.Module, want.Token.Label, want.Token.PIN.Env = "/etc/hsm-kp/lib.so", "prod", "PIN"
		want.Store.URL = "sqlite:/etc/hsm-kp/hsm-kp.db"
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%q) = %+v, want %+v", text, got, want)
		}
	}
}

// everything sets each field to something other than its default.
const everything = `
token:
  module: lib.so
  uri: "pkcs11:token=prod"
  label: 0042
  serial: 0123456789abcdef
  slot: 0x10
  pin: {env: PIN, file: pin, fd: 3, systemd: hsm-kp-pin, prompt: true}
  sessions: 4
  timeout: 5s
  recovery: 7m
  environment: {SOFTHSM2_CONF: ./softhsm2.conf, LEVEL: 5}
  vendor: luna
  quirks: {init_args: "flags=", kwp: 0x80000171, unwrap_point: true, local_untold: true, one_at_a_time: true, token_nonce: true, gone_codes: [0x80000001, 2147483650], library_calls: true, token_objects: true}
store:
  url: sqlite:other.db
  batch: 250
key_packages:
  suite: "1"
  lifetime: 1d12h
  backdate: 90m
  grace: 2d
  custody: token
  last_resort: {max_age: 3d}
  capabilities: {cipher_suites: [1, MLS_256_DHKEMP521_AES256GCM_SHA512_P521], extensions: [0x000A, 10], proposals: [9]}
  grease: true
  required_capabilities: {extensions: [6], proposals: [8], credentials: [2]}
  leaf_extensions: [{type: 0xF001, data: "00fF"}, {type: 1}]
  extensions: [{type: 0xF002, data: ""}]
  peers: [openmls, "7"]
experimental:
  enabled: true
  suites: [{number: 77, name: XWING, kem: X-Wing, aead: AES128GCM, hash: SHA256, signature: P256}]
x509:
  roots: roots.pem
  subject: O=Example
  enroll:
    command: [enroll, "7"]
    timeout: 3s
identities:
  relay.7:
    subject: CN=relay
    dns_names: [a.example]
    emails: [a@a.example]
    uris: [spiffe://a.example]
    application_id: seven
    custody: wrapped
    replenish: {directory: web, low: 1, high: 2}
    capabilities: {cipher_suites: [2], extensions: [7], proposals: [10]}
  8:
wrapping_keys: {max_age: 4d, max_uses: 1000, automatic: false}
audit: {origin: hsm.example/mls}
welcome:
  reservation: 30s
directories:
  - name: web
    type: http
    url: https://directory.example/kp
    path: spool
    headers: {X-Tenant: "7"}
    bearer: {env: TOKEN, file: bearer, systemd: bearer-token}
    ca: ca.pem
    certificate: client.pem
    key: client.key
    timeout: 1s
    deadline: 2s
    lease: 4s
    rate: 4
    burst: 5
    concurrency: 6
    batch: 7
    max_response: 8192
replenish: {directory: web, low: 3, high: 4, ending: 5d, last_resort: false}
unwrap:
  allow: true
server:
  listen: [tcp:127.0.0.1:8443, unix:s.sock, systemd:api]
  tls: {certificate: c.pem, key: k.pem, client_ca: ca.pem, crl: ca.crl}
  callers:
    app:
      uris: [spiffe://a.example]
      dns_names: [a.example]
      emails: [a@a.example]
      subjects: [CN=a]
      uids: [1000]
      gids: [4294967295]
      identities: [relay-*]
      operations: [claim]
      quota: 7
      period: 1h
      per_second: 16
      burst: 17
  limits: {message_bytes: 5, concurrent: 6, batch: 7, request: 8s, read: 12s, per_second: 13, burst: 14, connections: 15}
  grace: 9s
  observe: {listen: [tcp:127.0.0.1:9464, unix:o.sock], identities: 10, interval: 11s}
`

func TestEveryFieldCanBeSet(t *testing.T) {
	got := Default()
	d, err := decode([]byte(everything), got)
	if err != nil || len(d.faults) != 0 {
		t.Fatalf("decode() = %v, %v, want no faults", d, err)
	}
	slot, fd, one, two := uint(16), 3, 1, 2
	want := &Config{
		Token: Token{
			Module: "lib.so", URI: "pkcs11:token=prod", Label: "0042", Serial: "0123456789abcdef", Slot: &slot,
			PIN: PIN{Env: "PIN", File: "pin", FD: &fd, Systemd: "hsm-kp-pin", Prompt: true}, Sessions: 4, Timeout: Duration(5 * time.Second), Recovery: Duration(7 * time.Minute),
			Environment: map[string]string{"SOFTHSM2_CONF": "./softhsm2.conf", "LEVEL": "5"},
			Vendor:      "luna",
			Quirks:      Quirks{InitArgs: "flags=", KWP: 0x80000171, UnwrapPoint: yes, LocalUntold: yes, OneAtATime: yes, TokenNonce: yes, GoneCodes: []uint{0x80000001, 0x80000002}, LibraryCalls: yes, TokenObjects: yes},
		},
		Store: Store{URL: "sqlite:other.db", Batch: 250},
		KeyPackages: KeyPackages{
			Suite: "1", Lifetime: Duration(36 * time.Hour), Backdate: Duration(90 * time.Minute), Grace: Duration(48 * time.Hour),
			Custody: InToken, LastResort: LastResort{MaxAge: Duration(72 * time.Hour)},
			Capabilities: Capabilities{
				CipherSuites: []string{"1", "MLS_256_DHKEMP521_AES256GCM_SHA512_P521"},
				Extensions:   []uint16{10, 10}, Proposals: []uint16{9},
			},
			GREASE:         true,
			Required:       Required{Extensions: []uint16{6}, Proposals: []uint16{8}, Credentials: []uint16{2}},
			LeafExtensions: []Extension{{0xF001, []byte{0, 0xFF}}, {1, nil}},
			Extensions:     []Extension{{0xF002, []byte{}}},
			Peers:          []string{"openmls", "7"},
		},
		Experimental: Experimental{Enabled: true, Suites: []Suite{{77, "XWING", "X-Wing", "AES128GCM", "SHA256", "P256"}}},
		X509:         X509{Roots: "roots.pem", Subject: "O=Example", Enroll: Enroll{Command: []string{"enroll", "7"}, Timeout: Duration(3 * time.Second)}},
		Identities: map[string]Identity{
			"relay.7": {
				Subject: "CN=relay", DNSNames: []string{"a.example"}, Emails: []string{"a@a.example"}, URIs: []string{"spiffe://a.example"},
				ApplicationID: "seven", Custody: Wrapped, Replenish: OwnReplenish{"web", &one, &two},
				Capabilities: &Capabilities{CipherSuites: []string{"2"}, Extensions: []uint16{7}, Proposals: []uint16{10}},
			},
			"8": {},
		},
		Server: Server{
			Listen: []string{"tcp:127.0.0.1:8443", "unix:s.sock", "systemd:api"},
			TLS:    TLS{Certificate: "c.pem", Key: "k.pem", ClientCA: "ca.pem", CRL: "ca.crl"},
			Callers: map[string]Caller{"app": {
				URIs: []string{"spiffe://a.example"}, DNSNames: []string{"a.example"}, Emails: []string{"a@a.example"}, Subjects: []string{"CN=a"},
				UIDs: []uint32{1000}, GIDs: []uint32{math.MaxUint32}, Identities: []string{"relay-*"}, Operations: []string{"claim"},
				Quota: 7, Period: Duration(time.Hour), PerSecond: 16, Burst: 17,
			}},
			Limits:  Limits{MessageBytes: 5, Concurrent: 6, Batch: 7, Request: Duration(8 * time.Second), Read: Duration(12 * time.Second), PerSecond: 13, Burst: 14, Connections: 15},
			Grace:   Duration(9 * time.Second),
			Observe: Observe{Listen: []string{"tcp:127.0.0.1:9464", "unix:o.sock"}, Identities: 10, Interval: Duration(11 * time.Second)},
		},
		WrappingKeys: WrappingKeys{MaxAge: Duration(96 * time.Hour), MaxUses: 1000},
		Audit:        Audit{Origin: "hsm.example/mls"},
		Welcome:      Welcome{Reservation: Duration(30 * time.Second)},
		Directories: []Directory{{
			Name: "web", Type: HTTP, URL: "https://directory.example/kp", Path: "spool", Headers: map[string]string{"X-Tenant": "7"},
			Bearer: Secret{Env: "TOKEN", File: "bearer", Systemd: "bearer-token"}, CA: "ca.pem", Certificate: "client.pem", Key: "client.key",
			Timeout: Duration(time.Second), Deadline: Duration(2 * time.Second), Lease: Duration(4 * time.Second),
			Rate: 4, Burst: 5, Concurrency: 6, Batch: 7, MaxResponse: 8192,
		}},
		Replenish: Replenish{Directory: "web", Low: 3, High: 4, Ending: Duration(120 * time.Hour)},
		Unwrap:    Unwrap{Allow: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("decode() = %+v, want %+v", got, want)
	}
	if unset := sameLeaves("", reflect.ValueOf(*got), reflect.ValueOf(*Default())); len(unset) > 0 {
		t.Errorf("%v keep their defaults: no key sets them", unset)
	}
}

// sameLeaves returns the fields that are equal in a and b.
func sameLeaves(name string, a, b reflect.Value) []string {
	if a.Kind() != reflect.Struct {
		if reflect.DeepEqual(a.Interface(), b.Interface()) {
			return []string{name}
		}
		return nil
	}
	var same []string
	for i := range a.NumField() {
		same = append(same, sameLeaves(name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))...)
	}
	return same
}

func TestPathsBeginAtTheFile(t *testing.T) {
	c, err := parseText(`
token:
  module: ../lib/hsm.so
  label: prod
  pin: {file: pin}
  environment: {A: ./a, B: b, C: /c}
store: {url: "sqlite:/var/lib/hsm-kp.db"}
`)
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]string{
		"module":        {c.Token.Module, "/etc/lib/hsm.so"},
		"pin file":      {c.Token.PIN.File, "/etc/hsm-kp/pin"},
		"environment A": {c.Token.Environment["A"], "/etc/hsm-kp/a"},
		"environment B": {c.Token.Environment["B"], "b"},
		"environment C": {c.Token.Environment["C"], "/c"},
		"store":         {c.Store.URL, "sqlite:/var/lib/hsm-kp.db"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %q, want %q", what, pair[0], pair[1])
		}
	}
}

func TestAllFaultsAtOnceWithTheirLines(t *testing.T) {
	got := faultsOf(t, `token:
  lable: prod
  sessions: 0
  slot: first
  pin: {prompt: yes}
store:
  url: postgres://user:secret@host/db
  url: sqlite:x
  batch: many
stor: {}
key_packages:
  lifetime: 12 weeks
  backdate: -1h
  suite: [2]
  capabilities:
    extensions:
      - 65536
      - -1
      - ten
    proposals: 9
unwrap: yes
`)
	want := []string{
		`line 1: token.module is missing: the path of the PKCS#11 library`,
		`line 2: unknown key "lable" in token`,
		`line 3: token.sessions must be from 1 to 1024`,
		`line 4: token.slot must be a whole number`,
		`line 5: token.pin.prompt must be true or false`,
		`line 7: store.url has a password in it: it belongs in a file that PGPASSFILE names, or in PGPASSWORD`,
		`line 8: store.url is set twice, first on line 7`,
		`line 9: store.batch must be a whole number`,
		`line 10: unknown key "stor"`,
		`line 12: key_packages.lifetime must be a duration such as 84d, 36h, 1d12h or 90m`,
		`line 13: key_packages.backdate must be a duration such as 84d, 36h, 1d12h or 90m`,
		`line 14: key_packages.suite must be a text`,
		`line 17: key_packages.capabilities.extensions[0] must be from 0 to 65535`,
		`line 18: key_packages.capabilities.extensions[1] must be from 0 to 65535`,
		`line 19: key_packages.capabilities.extensions[2] must be a whole number`,
		`line 20: key_packages.capabilities.proposals must be a list`,
		`line 21: unwrap must be a group of keys`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "it is empty"},
		{"# nothing\n", "it is empty"},
		{"---\n", "it is empty"},
		{"~\n", "it is empty"},
		{small + "---\n" + small, "it has more than one YAML document"},
		{"- token\n", "it must be a group of keys: token, store, key_packages and so on"},
		{"token: *prod\n", "line 1: an alias without its anchor; a text that begins with * needs quotes"},
		{"token: {module: m, pin: {env: P}}", "line 1: token must have exactly one of label, serial, slot, it has 0"},
		{"token: {module: m, label: a, slot: 0, pin: {env: P}}", "line 1: token must have exactly one of label, serial, slot, it has 2"},
		{"token: {module: m, label: a, pin: {}}", "line 1: token.pin must have exactly one of env, fd, file, prompt, systemd, it has 0"},
		{"token: {module: m, label: a, pin: {prompt: false}}", "line 1: token.pin must have exactly one of env, fd, file, prompt, systemd, it has 0"},
		{"token: {module: m, label: a, pin: {fd: 0, env: P}}", "line 1: token.pin must have exactly one of env, fd, file, prompt, systemd, it has 2"},
		{"token: {module: m, label: a, pin: {fd: -1}}", "line 1: token.pin.fd must be from 0 to 2147483647"},
		{"token: {uri: 'http://hsm', pin: {env: P}}", "line 1: token.uri must begin with pkcs11: (RFC 7512)"},
		{"token: {uri: 'pkcs11:', pin: {env: P, prompt: true}}", "line 1: token.pin must have exactly one of env, fd, file, prompt, systemd, it has 2"},
		{"token: {module: m, slot: 99999999999999999999, pin: {env: P}}", "line 1: token.slot must be a whole number"},
		{"token: {module: m, slot: 1.5, pin: {env: P}}", "line 1: token.slot must be a whole number"},
		{"token: {module: m, slot: '1', pin: {env: P}}", "line 1: token.slot must be a whole number"},
		{small + "store: {batch: 10001}", "line 2: store.batch must be from 1 to 10000"},
		{small + "store: {url: 'sqlite:'}", "line 2: store.url must be sqlite:PATH, or postgres://USER@HOST/DATABASE"},
		{small + "store: {url: ''}", "line 2: store.url must be sqlite:PATH, or postgres://USER@HOST/DATABASE"},
		{small + "key_packages: {suite: ''}", "line 2: key_packages.suite is empty"},
		{small + "key_packages: {lifetime: 0s}", "line 2: key_packages.lifetime must be longer than 0"},
		{small + "key_packages: {custody: hsm}", "line 2: key_packages.custody must be wrapped or token"},
		{small + "key_packages: {custody: release}", "line 2: key_packages.custody must be wrapped or token: release is for the lines of a manifest, which have the device's keys"},
		{small + "identities: {a: {custody: device}}", "line 2: identities.a.custody must be wrapped or token: device is for the lines of a manifest, which have the device's keys"},
		{small + "identities: {a: {custody: hsm}}", "line 2: identities.a.custody must be wrapped or token"},
		{small + "key_packages: {last_resort: {max_age: 0s}}", "line 2: key_packages.last_resort.max_age must be longer than 0"},
		{small + "wrapping_keys: {max_uses: 0}", "line 2: wrapping_keys.max_uses must be from 1 to 2147483648"},
		{small + "audit: {origin: a b}", "line 2: audit.origin must have neither spaces nor +"},
		{small + "x509: {enroll: {timeout: 0s}}", "line 2: x509.enroll.timeout must be longer than 0"},
		{small + "welcome: {reservation: 0s}", "line 2: welcome.reservation must be longer than 0"},
		{small + "unwrap: {allow: 'yes'}", "line 2: unwrap.allow must be true or false"},
		{small + "? [a]\n: b\n", "line 2: an unknown key"},
		{small + "<<: {store: {batch: 3}}\n", "line 2: an unknown key"},
		{"token: {module: m, label: a, pin: {env: P}, environment: {'A=B': c}}", "line 1: token.environment has an invalid variable name"},
		{"token: {module: m, label: a, pin: {env: P}, environment: {1A: [b]}}", "line 1: token.environment has an invalid variable name"},
		{"token:\n  module: m\n  label: a\n  pin: {env: P}\n  environment:\n    A: b\n    '': c\n", "line 7: token.environment has an invalid variable name"},
		{"token: {module: m, label: a, pin: {env: P}, environment: {A: \"b\\0c\"}}", "line 1: token.environment.A must not have a zero byte"},
		{"token: {module: \"m\\0\", label: a, pin: {env: P}}", "line 1: token.module must not have a zero byte"},
		{"token: {module: m, label: a, pin: {env: A=B}}", "line 1: token.pin.env must be the name of an environment variable"},
		{"token:\n  module: &m lib\n  label: a\n  pin: {env: P}\n  sessions: *m\n", "line 5: token.sessions must be a whole number"},
		{"token: {module: m, label: a, pin: {env: P}, extra: 1}", `line 1: unknown key "extra" in token`},
		{"token: {module: m, label: a, pin: {env: P, extra: 1}}", "line 1: an unknown key in token.pin"},
		{small + "store: {extra: 1}", `line 2: unknown key "extra" in store`},
		{small + "key_packages: {extra: 1}", `line 2: unknown key "extra" in key_packages`},
		{small + "key_packages: {extensions: [{data: 'ff'}]}", `line 2: key_packages.extensions[0] must have a type`},
		{small + "key_packages: {leaf_extensions: [{type: 1, data: f}]}", `line 2: key_packages.leaf_extensions[0].data must be hexadecimal digits, two a byte, in quotes`},
		{small + "experimental: {suites: [{number: 1, name: a, kem: b, aead: c, hash: d}]}", `line 2: experimental.suites[0] must have a signature`},
		{small + "identities: {a: {}, b: {}, a: {}}", `line 2: identities."a" is set twice, first on line 2`},
		{small + "identities: {a.b: {subjekt: x}}", `line 2: unknown key "subjekt" in identities."a.b"`},
		{small + "key_packages: {capabilities: {extra: 1}}", `line 2: unknown key "extra" in key_packages.capabilities`},
		{small + "unwrap: {extra: 1}", `line 2: unknown key "extra" in unwrap`},
		{small + "token: {}\n", "line 2: token is set twice, first on line 1"},
		{small + "\tstore: {}\n", "line 2: it is not YAML: found character that cannot start any token"},
		{"token: {module: a\x00b}", "it is not YAML: control characters are not allowed (value: 0)"},
		{small + "store: " + strings.Repeat("[", 20000), "line 2: it is not YAML: exceeded max depth of 10000"},
		{"token: {module: m, label: a, pin: {env: P}, environment: {A: b, A: c}}", "line 1: token.environment.A is set twice, first on line 1"},
	} {
		if got := faultsOf(t, c.text); len(got) != 1 || got[0] != c.want {
			t.Errorf("Parse(%q) faults = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestAURICanSayItAll(t *testing.T) {
	c, err := parseText("token: {uri: 'pkcs11:token=prod?module-path=/lib.so&pin-source=file:/pin'}\n")
	if err != nil || c.Token.URI == "" || c.Token.Module != "" || c.Token.PIN != (PIN{}) {
		t.Errorf("Parse() = %+v, %v, want the URI alone", c, err)
	}
}

func TestAnAliasStandsForItsAnchor(t *testing.T) {
	c, err := parseText("token: {module: &m lib.so, label: *m, pin: {env: P}}\nkey_packages: {capabilities: {extensions: [&n 10, *n]}}\n")
	if err != nil || c.Token.Label != "lib.so" || !slices.Equal(c.KeyPackages.Capabilities.Extensions, []uint16{10, 10}) {
		t.Errorf("Parse() = %+v, %v, want the label lib.so and the extension twice", c, err)
	}
}

// Aliases of aliases, which would fill the memory if they were expanded, cost no more than their
// text.
func TestAliasesAreNotExpanded(t *testing.T) {
	var b strings.Builder
	b.WriteString(small + "a0: &a0 [x]\n")
	for i := range 200 {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), i)
	}
	b.WriteString("store: *a200\n")
	if got := faultsOf(t, b.String()); len(got) > 202 {
		t.Errorf("Parse() has %d faults, want at most one a line", len(got))
	}
	if got := faultsOf(t, "token: &a {module: m, label: b, pin: *a}\n"); !strings.Contains(strings.Join(got, "\n"), "token.pin") {
		t.Errorf("a group in itself: faults = %q, want one of token.pin", got)
	}
}

func TestLinesMayEndAsOnWindows(t *testing.T) {
	text := strings.ReplaceAll(everything, "slot: 0x10\n  pin: {env: PIN, file: pin, fd: 3, systemd: hsm-kp-pin, prompt: true}", "pin: {env: PIN}")
	text = strings.NewReplacer("  uri: \"pkcs11:token=prod\"\n", "", "  serial: 0123456789abcdef\n", "", "env: TOKEN, file: bearer, ", "").Replace(text)
	want, err := parseText(text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseText("\ufeff" + strings.ReplaceAll(text, "\n", "\r\n"))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Parse() = %+v, %v, want %+v", got, err, want)
	}
}

// Messages are for those who write YAML, not Go.
func TestNoFaultNamesAGoType(t *testing.T) {
	goType := regexp.MustCompile(`\b(config|yaml|strconv|reflect)\.[A-Z]|!!|struct|\bu?int(16|64)?\b|\bmap\b|\[\]string|unmarshal|%!`)
	for _, value := range []string{"x", "7", "-1", "1.5", "true", "~", "[]", "[[x]]", "{}", "{a: {b: c}}", "2001-01-01", ".inf", "!!binary aGk=", "!!int x", "99999999999999999999"} {
		for _, at := range []string{"%s", "token: %s", "store: %s", "unwrap: %s", "key_packages: %s", "key_packages: {capabilities: %s}",
			"token: {module: %[1]s, uri: %[1]s, label: %[1]s, serial: %[1]s, slot: %[1]s, pin: %[1]s, sessions: %[1]s, environment: %[1]s}",
			"token: {pin: {env: %[1]s, file: %[1]s, fd: %[1]s, systemd: %[1]s, prompt: %[1]s}, environment: {A: %[1]s}}",
			"store: {url: %[1]s, batch: %[1]s}", "key_packages: {suite: %[1]s, lifetime: %[1]s, backdate: %[1]s}", "unwrap: {allow: %s}",
			"key_packages: {capabilities: {cipher_suites: %[1]s, extensions: %[1]s, proposals: %[1]s}}",
			"key_packages: {grease: %[1]s, required_capabilities: %[1]s, extensions: %[1]s, leaf_extensions: %[1]s}",
			"key_packages: {required_capabilities: {extensions: %[1]s, proposals: %[1]s, credentials: [%[1]s]}, extensions: [%[1]s], leaf_extensions: [{type: %[1]s, data: %[1]s}]}",
			"experimental: %s", "experimental: {enabled: %[1]s, suites: %[1]s}",
			"experimental: {suites: [{number: %[1]s, name: %[1]s, kem: %[1]s, aead: %[1]s, hash: %[1]s, signature: %[1]s}, %[1]s]}",
			"x509: %s", "x509: {roots: %[1]s, subject: %[1]s}", "identities: %s", "identities: {a: %s}",
			"identities: {a: {subject: %[1]s, dns_names: %[1]s, emails: %[1]s, uris: %[1]s, application_id: %[1]s, capabilities: %[1]s}}",
			"key_packages: {capabilities: {cipher_suites: [%[1]s], extensions: [%[1]s], proposals: [%[1]s]}}"} {
			text := fmt.Sprintf(at, value)
			for _, fault := range faultsOf(t, text) {
				if goType.MatchString(fault) {
					t.Errorf("Parse(%q) fault = %q, want no Go in it", text, fault)
				}
			}
		}
	}
}

// A PIN in the wrong place of the file is not repeated in the messages.
func TestAPINInTheFileIsNotRepeated(t *testing.T) {
	const secret = "86421357"
	for _, text := range []string{
		"token: 86421357", "86421357", "- 86421357", "86421357: ", "token: {86421357: }", "token: {environment: {86421357: [a]}}",
		"token: {environment: {PIN=86421357: }}", "token: {environment: {PIN=86421357: , PIN=86421357: }}", "token: {environment: [PIN=86421357]}",
		"token: {sessions: 86421357}", "token: {slot: '86421357'}", "store: {batch: 86421357}", "store: 86421357", "store: {url: 86421357}",
		"unwrap: {allow: 86421357}", "key_packages: {lifetime: 86421357}", "key_packages: {capabilities: {extensions: [86421357]}}",
		"token: {uri: 86421357}", "token: {pin: \"86421357}", "token: @86421357", "%86421357\n---\n", "token: \"\\86421357\"", "token: |86421357\n",
	} {
		if _, err := parseText(text); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("Parse(%q) err = %v, want one without the PIN", text, err)
		}
	}
	for _, letters := range []string{"{correct-horse: }", "{correct-horse: battery}"} {
		if _, err := parseText("token: {pin: " + letters + "}"); err == nil || strings.Contains(err.Error(), "correct") {
			t.Errorf("pin: %s: err = %v, want one without the PIN", letters, err)
		}
	}
	for _, pin := range []string{secret, "{env: " + secret + "}", "'" + secret + "'", "{" + secret + ": }", "{fd: '" + secret + "'}", "[" + secret + "]",
		"{prompt: " + secret + "}", "{file: [" + secret + "]}", "*p" + secret, "{'x" + secret + "': 1}", "!" + secret + " [1]"} {
		_, err := parseText("token: {module: m, label: a, pin: " + pin + "}\n")
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("pin: %s: err = %v, want one without the PIN", pin, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hsm-kp.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || err.Error() != "config "+path+": no such file or directory" {
		t.Errorf("Load() of no file err = %v, want one that names the file once", err)
	}
	if _, err := Load(dir); err == nil || err.Error() != "config "+dir+": is a directory" {
		t.Errorf("Load() of a folder err = %v, want one that says so", err)
	}
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 { // root may read everything
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, fs.ErrPermission) || err.Error() != "config "+path+": permission denied" {
			t.Errorf("Load() of what may not be read err = %v, want one that says so", err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	c, err := Load("hsm-kp.yaml")
	if err != nil {
		t.Fatalf("Load() err = %v, want nil", err)
	}
	if want := filepath.Join(dir, "lib.so"); c.Token.Module != want {
		t.Errorf("Module = %q, want %q", c.Token.Module, want)
	}
	if err := os.WriteFile(path, []byte("a: 1\nb: 2\n"+small), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load("hsm-kp.yaml")
	if want := "config hsm-kp.yaml has 2 faults\nline 1: unknown key \"a\"\nline 2: unknown key \"b\""; err == nil || err.Error() != want {
		t.Errorf("Load() err = %v, want %v", err, want)
	}
}

func TestAFileWithoutEndIsRefused(t *testing.T) {
	if got := faultsOf(t, small+strings.Repeat("#", maxBytes)); len(got) != 1 || !strings.Contains(got[0], "bytes") {
		t.Errorf("faults = %q, want its length", got)
	}
}

// A truncated file is a config or an error, and never has more in it than the whole.
func FuzzParse(f *testing.F) {
	for i := range everything {
		f.Add(everything[:i])
	}
	f.Add(small)
	f.Add(string(Sample()))
	f.Add("token: &a {pin: *a, environment: *a}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseText(text)
		if (c == nil) == (err == nil) {
			t.Fatalf("Parse() = %v, %v, want one of them", c, err)
		}
		e, ok := errors.AsType[*Error](err)
		if err != nil && (!ok || e.Cause == nil && len(e.Faults) == 0) {
			t.Fatalf("Parse() err = %#v, want an Error with faults", err)
		}
		if err != nil {
			return
		}
		for _, path := range []string{c.Token.Module, c.Token.PIN.File} {
			if path != "" && !filepath.IsAbs(path) {
				t.Fatalf("Parse() = %+v, want absolute paths", c)
			}
		}
		if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); !ok || !filepath.IsAbs(path) {
			t.Fatalf("Parse() = %+v, want a store at an absolute path", c)
		}
		if c.Store.Batch < 1 || c.Token.Sessions < 1 || c.KeyPackages.Lifetime <= 0 || c.KeyPackages.Backdate < 0 {
			t.Fatalf("Parse() = %+v, want what the sample promises", c)
		}
	})
}
