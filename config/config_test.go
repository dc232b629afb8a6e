package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// small is a config file with what must be there and nothing else.
const small = "token: {module: lib.so, label: prod, pin: {env: PIN}}\n"

func parseText(text string) (*Config, error) {
	return Parse(strings.NewReader(text), "/etc/hsm-kp")
}

// faultsOf returns what is wrong with text, a line each.
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

// everything sets each field, to something other than its default.
const everything = `
token:
  module: lib.so
  uri: "pkcs11:token=prod"
  label: 0042
  serial: 0123456789abcdef
  slot: 0x10
  pin: {env: PIN, file: pin, fd: 3, systemd: hsm-kp-pin, prompt: true}
  sessions: 4
  environment: {SOFTHSM2_CONF: ./softhsm2.conf, LEVEL: 5}
store:
  url: sqlite:other.db
  batch: 250
key_packages:
  suite: "1"
  lifetime: 1d12h
  backdate: 90m
  capabilities: {cipher_suites: [1, MLS_256_DHKEMP521_AES256GCM_SHA512_P521], extensions: [0x000A, 10], proposals: [9]}
unwrap:
  allow: true
`

func TestEveryFieldCanBeSet(t *testing.T) {
	got := Default()
	d, err := decode([]byte(everything), got)
	if err != nil || len(d.faults) != 0 {
		t.Fatalf("decode() = %v, %v, want no faults", d, err)
	}
	slot, fd := uint(16), 3
	want := &Config{
		Token: Token{
			Module: "lib.so", URI: "pkcs11:token=prod", Label: "0042", Serial: "0123456789abcdef", Slot: &slot,
			PIN: PIN{Env: "PIN", File: "pin", FD: &fd, Systemd: "hsm-kp-pin", Prompt: true}, Sessions: 4,
			Environment: map[string]string{"SOFTHSM2_CONF": "./softhsm2.conf", "LEVEL": "5"},
		},
		Store: Store{URL: "sqlite:other.db", Batch: 250},
		KeyPackages: KeyPackages{
			Suite: "1", Lifetime: Duration(36 * time.Hour), Backdate: Duration(90 * time.Minute),
			Capabilities: Capabilities{
				CipherSuites: []string{"1", "MLS_256_DHKEMP521_AES256GCM_SHA512_P521"},
				Extensions:   []uint16{10, 10}, Proposals: []uint16{9},
			},
		},
		Unwrap: Unwrap{Allow: true},
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
		`line 3: token.sessions is 0, it must be 1 to 1024`,
		`line 4: token.slot must be a whole number`,
		`line 5: token.pin.prompt must be true or false`,
		`line 7: store.url names PostgreSQL, which this hsm-kp does not serve: it must be sqlite:PATH`,
		`line 8: store.url is there twice, first on line 7`,
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
		{"- token\n", "it must be a group of keys: token, store, key_packages, unwrap"},
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
		{small + "store: {batch: 10001}", "line 2: store.batch is 10001, it must be 1 to 10000"},
		{small + "store: {url: 'sqlite:'}", "line 2: store.url must be sqlite:PATH"},
		{small + "store: {url: ''}", "line 2: store.url must be sqlite:PATH"},
		{small + "key_packages: {suite: ''}", "line 2: key_packages.suite is empty"},
		{small + "key_packages: {lifetime: 0s}", "line 2: key_packages.lifetime must be longer than nothing"},
		{small + "unwrap: {allow: 'yes'}", "line 2: unwrap.allow must be true or false"},
		{small + "? [a]\n: b\n", "line 2: a key that is not known"},
		{small + "<<: {store: {batch: 3}}\n", "line 2: a key that is not known"},
		{"token: {module: m, label: a, pin: {env: P}, environment: {'A=B': c}}", `line 1: token.environment has a name that no variable can have: "A=B"`},
		{"token: {module: m, label: a, pin: {env: P}, environment: {A: b, A: c}}", "line 1: token.environment.A is there twice, first on line 1"},
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
	c, err := parseText("token: {module: &m lib.so, label: *m, pin: {env: P}}\n")
	if err != nil || c.Token.Label != "lib.so" {
		t.Errorf("Parse() = %+v, %v, want the label lib.so", c, err)
	}
}

// A PIN that somebody writes into the file is not repeated in what is said of it.
func TestAPINInTheFileIsNotRepeated(t *testing.T) {
	const secret = "86421357"
	for _, pin := range []string{secret, "'" + secret + "'", "{" + secret + ": }", "{fd: '" + secret + "'}", "[" + secret + "]",
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

// A file that is cut anywhere is a config or an error, and no more than the
// whole said.
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
		if err == nil && (c.Store.Batch < 1 || c.Token.Sessions < 1 || c.KeyPackages.Lifetime <= 0 || c.KeyPackages.Backdate < 0) {
			t.Fatalf("Parse() = %+v, want what the sample promises", c)
		}
	})
}
