package token_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/token"
)

func slot(n uint) *uint { return &n }

func TestParseURI(t *testing.T) {
	for in, want := range map[string]token.URI{
		"pkcs11:":         {},
		"pkcs11:token=kp": {Token: "kp"},
		"PKCS11:token=kp": {Token: "kp"},
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=0a;slot-id=7;object=my-key;type=private;id=%69%95%3E%5C%F4%BD%EC%91": {
			Token: "The Software PKCS#11 Softtoken", Manufacturer: "Snake Oil, Inc.", Model: "1.0", Serial: "0a",
			SlotID: slot(7), Object: "my-key", Type: "private", ID: []byte("\x69\x95\x3e\x5c\xf4\xbd\xec\x91"),
		},
		"pkcs11:token=a+b?module-path=/usr/lib/m.so&pin-source=file:/etc/pin&module-name=m&x-vendor=1": {
			Token: "a+b", ModulePath: "/usr/lib/m.so", PINSource: "file:/etc/pin",
		},
		"pkcs11:?module-path=/m.so":          {ModulePath: "/m.so"},
		"pkcs11:library-version=3;x-v_1=%41": {Others: map[string]string{"library-version": "3", "x-v_1": "A"}},
		"pkcs11:token=":                      {},
		"pkcs11:token=a?":                    {Token: "a"},
	} {
		got, err := token.ParseURI(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseURI(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, in := range []string{
		"", "pkcs11", "token=kp", "http://token=kp", "pkcs12:token=kp",
		"pkcs11:token", "pkcs11:=kp", "pkcs11:token=a;", "pkcs11:;token=a", "pkcs11:token=a;;serial=1",
		"pkcs11:token=a;token=a", "pkcs11:token=a?pin-source=file:/a&pin-source=file:/b",
		"pkcs11:token=%", "pkcs11:token=%4", "pkcs11:token=%zz", "pkcs11:token=a b", "pkcs11:token=a#b",
		"pkcs11:to%6ben=kp", "pkcs11:slot-id=", "pkcs11:slot-id=-1", "pkcs11:slot-id=0x1", "pkcs11:slot-id=99999999999999999999",
		"pkcs11:token=a?module-path", "pkcs11:token=a?pin-value=1234",
	} {
		if got, err := token.ParseURI(in); err == nil {
			t.Errorf("ParseURI(%q) = %+v, want an error", in, got)
		}
	}
}

func TestPINInAURIIsRefusedAndNotRepeated(t *testing.T) {
	_, err := token.ParseURI("pkcs11:token=kp?pin-value=98765")
	if err == nil || !strings.Contains(err.Error(), "a PIN in a URI") || strings.Contains(err.Error(), "98765") {
		t.Errorf("ParseURI() err = %v, want one that names pin-value and not the PIN", err)
	}
}

func TestURIFillsInConfig(t *testing.T) {
	u, err := token.ParseURI("pkcs11:token=kp;serial=1;manufacturer=m;model=o;slot-id=3?module-path=/m.so&pin-source=file:///etc/pin")
	if err != nil {
		t.Fatalf("ParseURI() err = %v, want nil", err)
	}
	cfg := token.Config{Sessions: 4, Label: "kp"}
	if err := u.Apply(&cfg); err != nil {
		t.Fatalf("Apply() err = %v, want nil", err)
	}
	want := token.Config{
		Module: "/m.so", Label: "kp", Serial: "1", Manufacturer: "m", Model: "o",
		Slot: slot(3), PIN: token.File("/etc/pin"), Sessions: 4,
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("Apply() = %+v, want %+v", cfg, want)
	}
}

func TestURIThatConfigContradictsIsRefused(t *testing.T) {
	for _, c := range []struct {
		uri string
		cfg token.Config
	}{
		{"pkcs11:token=a", token.Config{Label: "b"}},
		{"pkcs11:serial=a", token.Config{Serial: "b"}},
		{"pkcs11:slot-id=1", token.Config{Slot: slot(2)}},
		{"pkcs11:?module-path=/a", token.Config{Module: "/b"}},
		{"pkcs11:?pin-source=file:/a", token.Config{PIN: token.Env("PIN")}},
		{"pkcs11:?pin-source=%7Ccat%20/a", token.Config{}},
		{"pkcs11:?pin-source=file:a", token.Config{}},
		{"pkcs11:library-version=3", token.Config{}},
	} {
		u, err := token.ParseURI(c.uri)
		if err != nil {
			t.Errorf("ParseURI(%q) err = %v, want nil", c.uri, err)
			continue
		}
		cfg := c.cfg
		if err := u.Apply(&cfg); err == nil || !reflect.DeepEqual(cfg, c.cfg) {
			t.Errorf("Apply() of %q err = %v with config %+v, want an error and the config as it was", c.uri, err, cfg)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"pkcs11:", "pkcs11:token=kp;id=%01%ff?module-path=/usr/lib/m.so&pin-source=file:/etc/pin", "pkcs11:slot-id=4;x=1", "pkcs11:token=%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := token.ParseURI(s)
		if err != nil {
			return
		}
		_ = u.Apply(&token.Config{})
		again, err := token.ParseURI(u.String())
		if err != nil {
			t.Fatalf("ParseURI(%q), which was %q, err = %v, want nil", u.String(), s, err)
		}
		if again.String() != u.String() {
			t.Errorf("URI %q becomes %q", u.String(), again.String())
		}
	})
}
