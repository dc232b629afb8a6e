package keypackage

import (
	"encoding/binary"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Extension is an extension of a key package, a leaf node, a group or a GroupInfo (RFC 9420,
// Section 13): uint16 extension_type, opaque extension_data<V>.
type Extension struct {
	Type ExtensionType
	Data []byte
}

// ApplicationID returns the application_id extension of a leaf node (RFC 9420, Section
// 5.3.3), with an identifier that the application defines.
func ApplicationID(id []byte) Extension {
	return Extension{Type: ExtensionApplicationID, Data: wire.AppendVector(nil, id)}
}

// readExtensions decodes Extension extensions<V>, in order and with repetitions.
func readExtensions(r *wire.Reader) []Extension {
	var extensions []Extension
	list := wire.NewReader(r.Vector())
	for list.Len() > 0 {
		extensions = append(extensions, Extension{Type: ExtensionType(list.Uint16()), Data: list.Vector()})
	}
	if err := list.Finish(); err != nil {
		r.Fail(err)
	}
	return extensions
}

func appendExtensions(b []byte, extensions []Extension) []byte {
	b = wire.AppendVectorLen(b, sizeExtensionList(extensions))
	for _, e := range extensions {
		b = binary.BigEndian.AppendUint16(b, uint16(e.Type))
		b = wire.AppendVector(b, e.Data)
	}
	return b
}

// sizeExtensions returns the length of what appendExtensions appends.
func sizeExtensions(extensions []Extension) int {
	n := sizeExtensionList(extensions)
	return wire.VectorLen(n) + n
}

func sizeExtensionList(extensions []Extension) int {
	n := 0
	for _, e := range extensions {
		n += 2 + sizeVector(e.Data)
	}
	return n
}

// allowedInLeafNode reports whether the registry (RFC 9420, Section 17.3) allows t in a leaf
// node. Types that the registry does not have are allowed.
func (t ExtensionType) allowedInLeafNode() bool {
	switch t {
	case 0, ExtensionRatchetTree, ExtensionRequiredCapabilities, ExtensionExternalPub, ExtensionExternalSenders, ExtensionLastResort:
		return false
	}
	return true
}

// allowedInKeyPackage is the same for a key package.
func (t ExtensionType) allowedInKeyPackage() bool {
	return t == ExtensionLastResort || t != ExtensionApplicationID && t.allowedInLeafNode()
}

// wellFormed reports whether the data fits the type: application_id is one opaque<V> (RFC
// 9420, Section 5.3.3), last_resort is empty. Data of other types may be anything.
func (e Extension) wellFormed() bool {
	switch e.Type {
	case ExtensionApplicationID:
		r := wire.NewReader(e.Data)
		r.Vector()
		return r.Finish() == nil
	case ExtensionLastResort:
		return len(e.Data) == 0
	}
	return true
}

// repeats reports whether an extension before the i-th has the same type.
func repeats(extensions []Extension, i int) bool {
	return slices.ContainsFunc(extensions[:i], func(e Extension) bool { return e.Type == extensions[i].Type })
}
