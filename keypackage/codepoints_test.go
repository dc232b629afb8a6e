package keypackage_test

import (
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestCodePointsPrintAsInTheRFC(t *testing.T) {
	for _, test := range []struct {
		value fmt.Stringer
		want  string
	}{
		{keypackage.MLS10, "mls10"},
		{keypackage.ProtocolVersion(2), "0x0002"},
		{keypackage.WireFormatKeyPackage, "mls_key_package"},
		{keypackage.WireFormat(0xF000), "0xF000"},
		{keypackage.ExtensionExternalSenders, "external_senders"},
		{keypackage.ExtensionLastResort, "last_resort"},
		{keypackage.ExtensionType(0x0A0A), "GREASE 0x0A0A"},
		{keypackage.ExtensionType(0xEAEA), "GREASE 0xEAEA"},
		{keypackage.ExtensionType(0xFAFA), "0xFAFA"}, // private use
		{keypackage.ExtensionType(0x0A1A), "0x0A1A"},
		{keypackage.ExtensionType(0x0B0B), "0x0B0B"},
		{keypackage.ProposalGroupContextExtensions, "group_context_extensions"},
		{keypackage.CredentialX509, "x509"},
		{keypackage.SourceKeyPackage, "key_package"},
		{keypackage.SourceUpdate, "update"},
		{keypackage.SourceCommit, "commit"},
		{keypackage.LeafNodeSource(9), "0x09"},
		{keypackage.Ref{0xAB, 0x01}, "ab01"},
		{keypackage.Warning, "warning"},
		{keypackage.Error, "error"},
		{keypackage.Severity(0), "Severity(0)"},
	} {
		if got := test.value.String(); got != test.want {
			t.Errorf("%T.String() = %q, want %q", test.value, got, test.want)
		}
	}
}

func TestValuesPrintInHexadecimalOnce(t *testing.T) {
	for _, test := range []struct {
		verb  string
		value any
		want  string
	}{
		{"%v", keypackage.Ref{0xAB, 0x01}, "ab01"},
		{"%+v", keypackage.Ref{0xAB, 0x01}, "ab01"},
		{"%s", keypackage.Ref{0xAB, 0x01}, "ab01"},
		{"%x", keypackage.Ref{0xAB, 0x01}, "ab01"},
		{"%X", keypackage.Ref{0xAB, 0x01}, "AB01"},
		{"% x", keypackage.Ref{0xAB, 0x01}, "ab 01"},
		{"%q", keypackage.Ref{0xAB, 0x01}, `"ab01"`},
		{"%-6s|", keypackage.Ref{0xAB, 0x01}, "ab01  |"},
		{"%x", keypackage.MLS10, "1"},
		{"%04x", keypackage.WireFormatKeyPackage, "0005"},
		{"0x%04X", keypackage.ExtensionLastResort, "0x000A"},
		{"%x", keypackage.ProposalPSK, "4"},
		{"%d", keypackage.CredentialX509, "2"},
		{"%02x", keypackage.SourceCommit, "03"},
		{"%s", keypackage.SourceCommit, "commit"},
		{"%#v", keypackage.CredentialX509, "0x2"},
	} {
		if got := fmt.Sprintf(test.verb, test.value); got != test.want {
			t.Errorf("Sprintf(%q, %T) = %s, want %s", test.verb, test.value, got, test.want)
		}
	}
}

func TestThereAreFifteenGREASEValues(t *testing.T) {
	n := 0
	for v := range 1 << 16 {
		if s := keypackage.ExtensionType(v).String(); len(s) > 6 && s[:6] == "GREASE" {
			n++
		}
	}
	if n != 15 {
		t.Errorf("%d values print as GREASE, want 15", n)
	}
}

// RFC 9420, Section 7.2.
func TestDefaultTypes(t *testing.T) {
	for v := range 20 {
		if got, want := keypackage.ExtensionType(v).Default(), 1 <= v && v <= 5; got != want {
			t.Errorf("ExtensionType(%d).Default() = %v, want %v", v, got, want)
		}
		if got, want := keypackage.ProposalType(v).Default(), 1 <= v && v <= 7; got != want {
			t.Errorf("ProposalType(%d).Default() = %v, want %v", v, got, want)
		}
	}
}
