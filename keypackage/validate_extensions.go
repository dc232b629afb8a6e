package keypackage

import "slices"

// extensionRules has the rules for one of the two lists of extensions.
type extensionRules struct {
	notListed, repeated, misplaced rule
	allowed                        func(ExtensionType) bool
}

var leafExtensionRules = extensionRules{
	notListed: leafExtensionNotListed,
	repeated:  leafExtensionRepeated,
	misplaced: leafExtensionMisplaced,
	allowed: func(t ExtensionType) bool {
		// Only a draft forbids last_resort: see lastResort.
		return t == ExtensionLastResort || t.allowedInLeafNode()
	},
}

var keyPackageExtensionRules = extensionRules{
	notListed: extensionNotListed,
	repeated:  extensionRepeated,
	misplaced: extensionMisplaced,
	allowed:   ExtensionType.allowedInKeyPackage,
}

func (v *validation) extensions() {
	v.extensionList(v.leaf.Extensions, leafExtensionRules)
	v.applicationID()
	v.extensionList(v.kp.Extensions, keyPackageExtensionRules)
	v.lastResort()
}

// extensionList reports each fault of a type once. Its time is linear in the length of the
// list, because anybody can make a long one.
func (v *validation) extensionList(list []Extension, rules extensionRules) {
	if len(list) == 0 {
		return
	}
	listed := make(map[ExtensionType]bool)
	for _, t := range v.leaf.Capabilities.Extensions {
		listed[t] = true
	}
	count := make(map[ExtensionType]int)
	for _, e := range list {
		count[e.Type]++
		switch {
		case count[e.Type] == 2:
			v.find(rules.repeated, e.Type)
		case count[e.Type] > 2:
		case !rules.allowed(e.Type):
			v.find(rules.misplaced, e.Type)
		case !e.Type.Default() && !listed[e.Type]:
			v.find(rules.notListed, e.Type)
		}
	}
}

func (v *validation) applicationID() {
	malformed := func(e Extension) bool { return e.Type == ExtensionApplicationID && !e.wellFormed() }
	if slices.ContainsFunc(v.leaf.Extensions, malformed) {
		v.find(applicationIDMalformed, nil)
	}
}

func (v *validation) lastResort() {
	present := func(e Extension) bool { return e.Type == ExtensionLastResort }
	malformed := func(e Extension) bool { return present(e) && !e.wellFormed() }
	if slices.ContainsFunc(v.leaf.Extensions, present) || slices.ContainsFunc(v.kp.Extensions, malformed) {
		v.find(lastResortMalformed, nil)
	}
}
