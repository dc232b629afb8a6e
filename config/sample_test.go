package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The sample states the defaults correctly: apart from the token and its PIN, which have none, it
// is the default config.
func TestSampleIsTheDefault(t *testing.T) {
	got, err := Parse(bytes.NewReader(Sample()), "/etc/hsm-kp")
	if err != nil {
		t.Fatalf("Parse(Sample()) err = %v, want nil", err)
	}
	want := Default()
	want.resolve("/etc/hsm-kp")
	got.Token.Module, got.Token.Label, got.Token.PIN = "", "", PIN{}
	dropEmpty(reflect.ValueOf(got).Elem())
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Parse(Sample()) = %+v, want %+v", got, want)
	}
}

// dropEmpty replaces empty lists and maps by nil: the sample shows where they belong.
func dropEmpty(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			dropEmpty(v.Field(i))
		}
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			v.SetZero()
		}
	}
}

func TestSampleHasEveryKey(t *testing.T) {
	var root yaml.Node
	if err := yaml.Load([]byte(everything), &root); err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(root.Content[0]) {
		if key == "LEVEL" || key == "8" {
			continue // invented by the test
		}
		if !regexp.MustCompile(`(?m)^ *(# *)?` + key + `:`).Match(Sample()) {
			t.Errorf("the sample does not have %s", key)
		}
	}
}

func keysOf(n *yaml.Node) []string {
	var all []string
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			all = append(append(all, n.Content[i].Value), keysOf(n.Content[i+1])...)
		}
	}
	return all
}

// The fields that the sample shows as comments are valid without the #.
func TestSampleWithoutItsCommentMarks(t *testing.T) {
	text := regexp.MustCompile(`(?m)^( +)# ([a-z_]+:|SOFTHSM2_CONF:)( .*)?$`).ReplaceAll(Sample(), []byte("$1$2$3"))
	text = bytes.ReplaceAll(text, []byte("environment: {}"), []byte("environment:"))
	c := Default()
	d, err := decode(text, c)
	if err != nil || len(d.faults) > 0 {
		t.Fatalf("decode() = %+v, %v, want no faults", d, err)
	}
	if same := sameLeaves("", reflect.ValueOf(c.Token), reflect.ValueOf(Token{Sessions: 0})); len(same) > 0 {
		t.Errorf("%v are not set", same)
	}
}

// A group that the sample has as a comment can be added at its end, as the head of the file says.
func TestCommentedGroupsCanBeAdded(t *testing.T) {
	groups := regexp.MustCompile(`(?m)^# ([a-z0-9_]+:\n(?:#.*\n)+)`).FindAllSubmatch(Sample(), -1)
	if len(groups) < 5 {
		t.Fatalf("the sample has %d groups as comments, want experimental, x509, identities, audit, directories and server", len(groups))
	}
	text := Sample()
	for _, g := range groups {
		text = append(text, regexp.MustCompile(`(?m)^# `).ReplaceAll(g[1], nil)...)
	}
	d, err := decode(text, Default())
	if err != nil || len(d.faults) > 0 {
		t.Fatalf("decode() = %+v, %v, want no faults", d, err)
	}
}

// Whatever the name of a folder, the config in it names it correctly.
func TestWriteSoftHSMKeepsEveryPath(t *testing.T) {
	for _, name := range []string{
		"plain", "with space", " leading", "trailing ", `"quoted"`, "it's", "a#b", "a #b", "a: b", "- a", "{a}", "[a]", "*a", "&a", "!a", "%a", "@a", "`a`", "|", ">", "?",
		"~", "null", "true", "0042", "0x10", "1e3", "Zoë", "鍵", "\U0001F511", "a\nb", "a\tb", "a\rb", `a\b`, `a\nb`, "a\x7fb", "\u0085", "\u2028", "\ufeff", "{{.PIN}}", "$HOME",
	} {
		path := filepath.Join(t.TempDir(), "hsm-kp.yaml")
		s := SoftHSM{Module: "/" + name + "/lib.so", Label: name, Conf: "/" + name + "/softhsm2.conf", PIN: "/" + name + "/pin", Store: "/" + name + "/hsm-kp.db"}
		if err := WriteSoftHSM(path, s); err != nil {
			t.Errorf("%q: WriteSoftHSM() err = %v, want nil", name, err)
			continue
		}
		c, err := Load(path)
		if err != nil {
			t.Errorf("%q: Load() err = %v, want nil", name, err)
			continue
		}
		got := SoftHSM{c.Token.Module, c.Token.Label, c.Token.Environment["SOFTHSM2_CONF"], c.Token.PIN.File, c.Store.URL[len("sqlite:"):]}
		if got != s {
			t.Errorf("Load() = %q, want %q", got, s)
		}
	}
}

func TestWriteSoftHSMRefusesWhatYAMLCannotHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hsm-kp.yaml")
	if err := WriteSoftHSM(path, SoftHSM{Module: "/\xff/lib.so"}); err == nil {
		t.Error("WriteSoftHSM() of a path that is not UTF-8 err = nil, want one")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat() err = %v, want %v", err, fs.ErrNotExist)
	}
}

func TestWriteSoftHSM(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hsm-kp.yaml")
	s := SoftHSM{Module: `/opt/a "b" \ c: #d/lib.so`, Label: "it's 'mine'", Conf: "./softhsm2.conf", PIN: "pin", Store: "hsm-kp.db"}
	if err := WriteSoftHSM(path, s); err != nil {
		t.Fatalf("WriteSoftHSM() err = %v, want nil", err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatalf("Load() err = %v, want nil", err)
	}
	want := Default()
	want.Token.Module, want.Token.Label = s.Module, s.Label
	want.Token.PIN.File = filepath.Join(dir, "pin")
	want.Token.Environment = map[string]string{"SOFTHSM2_CONF": filepath.Join(dir, "softhsm2.conf")}
	want.Store.URL = "sqlite:" + filepath.Join(dir, "hsm-kp.db")
	dropEmpty(reflect.ValueOf(c).Elem())
	if !reflect.DeepEqual(c, want) {
		t.Errorf("Load() = %+v, want %+v", c, want)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteSoftHSM(path, SoftHSM{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteSoftHSM() over a file err = %v, want %v", err, fs.ErrExist)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file changed (%v)", err)
	}
}
