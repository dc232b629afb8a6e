package config

import (
	"strings"
	"testing"
)

func tokenWith(text string) string {
	return "token: {module: lib.so, label: prod, pin: {env: PIN}, " + text + "}\n"
}

func isSet(b *bool) bool { return b != nil && *b }

func TestAVendorStandsForItsQuirks(t *testing.T) {
	c, err := parseText(tokenWith("vendor: nss, quirks: {init_args: flags=}"))
	if err != nil {
		t.Fatalf("Parse() err = %v, want nil", err)
	}
	q := c.Token.Quirks
	if !isSet(q.UnwrapPoint) || !isSet(q.LocalUntold) || isSet(q.TokenNonce) || q.InitArgs != "flags=" {
		t.Errorf("quirks of NSS = %+v, want the point and CKA_LOCAL", q)
	}
}

func TestAQuirkIsSetBesideItsVendor(t *testing.T) {
	c, err := parseText(tokenWith("quirks: {init_args: flags=, local_untold: false, token_nonce: true, kwp: 0x8001}, vendor: nss"))
	if err != nil {
		t.Fatalf("Parse() err = %v, want nil", err)
	}
	q := c.Token.Quirks
	if isSet(q.LocalUntold) || !isSet(q.UnwrapPoint) || !isSet(q.TokenNonce) || q.KWP != 0x8001 {
		t.Errorf("quirks = %+v, want those of the file and the rest of NSS", q)
	}
	if vendors["nss"].TokenNonce != nil || !*yes {
		t.Error("a file changed a vendor's defaults")
	}
}

func TestEveryVendorIsTaken(t *testing.T) {
	for _, v := range Vendors() {
		if c, err := parseText(tokenWith("vendor: " + v + ", quirks: {init_args: a}")); err != nil || c.Token.Vendor != v {
			t.Errorf("Parse() of vendor %s = %v, %v, want it", v, c, err)
		}
		if !strings.Contains(string(Sample()), v) {
			t.Errorf("the sample does not name %s", v)
		}
	}
}

func TestFaultsOfVendors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"vendor: acme", "line 1: token.vendor must be one of cloudhsm, luna, nshield, nss, p11-kit, softhsm, tpm2, utimaco, yubihsm; modules of other vendors need none"},
		{"vendor: nss", "line 1: token.quirks.init_args is missing: NSS learns from it where its database is, as in configdir='sql:/var/lib/nss' flags="},
		{"quirks: {locals: true}", `line 1: unknown key "locals" in token.quirks`},
		{"quirks: {token_nonce: 1}", "line 1: token.quirks.token_nonce must be true or false"},
		{"quirks: {gone_codes: [0x80000001, 0x30]}", "line 1: token.quirks.gone_codes[1] must be from 2147483648 to 4294967295"},
		{"quirks: {kwp: 0x100000000}", "line 1: token.quirks.kwp must be from 1 to 4294967295"},
	} {
		if got := faultsOf(t, tokenWith(c.text)); len(got) != 1 || got[0] != c.want {
			t.Errorf("Parse(%q) faults = %q, want %q", c.text, got, c.want)
		}
	}
}
