package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Quirks holds what some modules need and others do not. A nil field takes the vendor's default, or
// false if there is none.
type Quirks struct {
	InitArgs    string // argument of C_Initialize
	KWP         uint   // the vendor's number of the mechanism that wraps keys by RFC 5649; or 0
	UnwrapPoint *bool  // C_UnwrapKey needs the public point
	LocalUntold *bool  // CKA_LOCAL is not reliable
	OneAtATime  *bool  // calls must not overlap
	TokenNonce  *bool  // the token makes the nonces of AES-GCM
	GoneCodes   []uint // the vendor's return values for a device that is gone
	// LibraryCalls makes the libraries ask for lengths first; TokenObjects avoids session copies of
	// keys.
	LibraryCalls, TokenObjects *bool
}

// vendors has the known quirks of each vendor's module, measured or from the vendor's
// documentation. docs/hsm has a page for each.
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

// Vendors returns the valid names of token.vendor, in alphabetical order.
func Vendors() []string { return slices.Sorted(maps.Keys(vendors)) }

func (t *Token) validateVendor(d *decoder) {
	switch _, known := vendors[t.Vendor]; {
	case t.Vendor != "" && !known:
		d.contentFault("token.vendor", "must be one of %s; modules of other vendors need none", strings.Join(Vendors(), ", "))
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
