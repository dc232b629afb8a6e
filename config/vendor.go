package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Quirks are what some modules need and others do not. Nil is what Token.Vendor stands
// for, and where that says nothing, no.
type Quirks struct {
	InitArgs    string // of C_Initialize
	KWP         uint   // the mechanism that wraps keys as RFC 5649 says, where it has a number of the vendor's; or 0
	UnwrapPoint *bool  // C_UnwrapKey wants the public point
	LocalUntold *bool  // what the token says of CKA_LOCAL means nothing
	OneAtATime  *bool  // calls of the module must not overlap
	TokenNonce  *bool  // the token makes the nonces of AES-GCM
	GoneCodes   []uint // what the module returns, of the vendor's own, where the device is gone
	// LibraryCalls has the libraries ask for lengths first; TokenObjects does without session
	// copies of keys.
	LibraryCalls, TokenObjects *bool
}

// vendors are the quirks that each vendor's module is known to have: measured, or from the
// vendor's documentation. docs/hsm has a page for each.
var vendors = map[string]Quirks{
	"cloudhsm": {TokenNonce: yes},
	"luna":     {KWP: 0x80000171}, // CKM_AES_KWP of Thales' header
	"nshield":  {},
	"nss":      {UnwrapPoint: yes, LocalUntold: yes},
	"p11-kit":  {OneAtATime: yes},
	"softhsm":  {},
	"tpm2":     {},
	"utimaco":  {},
	"yubihsm":  {},
}

var yes = func() *bool { b := true; return &b }()

// Vendors returns the names that token.vendor may have, in alphabetical order.
func Vendors() []string { return slices.Sorted(maps.Keys(vendors)) }

func (t *Token) validateVendor(d *decoder) {
	switch _, known := vendors[t.Vendor]; {
	case t.Vendor != "" && !known:
		d.contentFault("token.vendor", "must be one of %s; a module of another needs none", strings.Join(Vendors(), ", "))
	case t.Vendor == "nss" && t.Quirks.InitArgs == "":
		d.contentFault("token.quirks.init_args", "is missing: NSS learns from it where its database is, as in configdir='sql:/var/lib/nss' flags=")
	}
}

// applyVendor fills in the quirks that the file does not set.
func (t *Token) applyVendor() {
	preset := vendors[t.Vendor]
	q := &t.Quirks
	q.KWP = cmp.Or(q.KWP, preset.KWP)
	for _, f := range []struct{ to, from **bool }{
		{&q.UnwrapPoint, &preset.UnwrapPoint}, {&q.LocalUntold, &preset.LocalUntold},
		{&q.OneAtATime, &preset.OneAtATime}, {&q.TokenNonce, &preset.TokenNonce},
		{&q.LibraryCalls, &preset.LibraryCalls}, {&q.TokenObjects, &preset.TokenObjects},
	} {
		if *f.to == nil {
			*f.to = *f.from
		}
	}
}
