package keypackage_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestEncodingGivesBackWhatWasDecoded(t *testing.T) {
	for _, s := range ciphersuite.All() {
		for name, template := range map[string]keypackage.Template{"plain": newTemplate(s), "rich": richTemplate(s)} {
			t.Run(s.Name+"/"+name, func(t *testing.T) {
				v := build(t, template)
				kp, err := keypackage.Parse(v.Bytes())
				if err != nil {
					t.Fatalf("Parse() err = %v, want nil", err)
				}
				wantEqual(t, "Bytes()", kp.Bytes(), v.Bytes())
				wantEqual(t, "Message()", kp.Message(), v.Message())
				ref, err := kp.Ref()
				if err != nil {
					t.Fatalf("Ref() err = %v, want nil", err)
				}
				wantEqual(t, "Ref()", ref, v.Ref())
				leaf, err := keypackage.ParseLeafNode(kp.LeafNode.Bytes())
				if err != nil {
					t.Fatalf("ParseLeafNode() err = %v, want nil", err)
				}
				wantEqual(t, "LeafNode.Bytes()", leaf.Bytes(), kp.LeafNode.Bytes())
			})
		}
	}
}

func TestMessageIsTheKeyPackageAfterItsHeader(t *testing.T) {
	v := build(t, newTemplate(suiteOf(t, 2)))
	wantEqual(t, "Message()", v.Message(), append([]byte{0, 1, 0, 5}, v.Bytes()...))
	m, err := keypackage.ParseMessage(v.Message())
	if err != nil {
		t.Fatalf("ParseMessage() err = %v, want nil", err)
	}
	if m.Version != keypackage.MLS10 || m.WireFormat != keypackage.WireFormatKeyPackage || m.KeyPackage == nil {
		t.Fatalf("ParseMessage() = %+v, want a key package of mls10", m)
	}
	wantEqual(t, "Body", m.Body, v.Bytes())
	wantEqual(t, "KeyPackage.Bytes()", m.KeyPackage.Bytes(), v.Bytes())
}

func TestParseMessageKeepsOtherWireFormats(t *testing.T) {
	m, err := keypackage.ParseMessage([]byte{0, 1, 0, 3, 'w', 'e'})
	if err != nil {
		t.Fatalf("ParseMessage() err = %v, want nil", err)
	}
	if m.WireFormat != keypackage.WireFormatWelcome || m.KeyPackage != nil || string(m.Body) != "we" {
		t.Errorf("ParseMessage() = %+v, want a Welcome with its body", m)
	}
}

func TestParseMessageRefusesAnotherVersion(t *testing.T) {
	if _, err := keypackage.ParseMessage([]byte{0, 2, 0, 5}); !errors.Is(err, keypackage.ErrVersion) {
		t.Errorf("ParseMessage() err = %v, want %v", err, keypackage.ErrVersion)
	}
}

func TestInputCutAnywhereIsRefused(t *testing.T) {
	s := suiteOf(t, 2)
	template := richTemplate(s)
	v := build(t, template)
	leaf := v.KeyPackage().LeafNode
	x509 := keypackage.X509Credential([][]byte{make([]byte, 70), {1}, nil})
	parsers := map[string]struct {
		parse func([]byte) error
		input []byte
	}{
		"Parse":           {func(b []byte) error { _, err := keypackage.Parse(b); return err }, v.Bytes()},
		"ParseMessage":    {func(b []byte) error { _, err := keypackage.ParseMessage(b); return err }, v.Message()},
		"ParseLeafNode":   {func(b []byte) error { _, err := keypackage.ParseLeafNode(b); return err }, leaf.Bytes()},
		"ParseCredential": {func(b []byte) error { _, err := keypackage.ParseCredential(b); return err }, x509.Bytes()},
	}
	for name, p := range parsers {
		t.Run(name, func(t *testing.T) {
			if err := p.parse(p.input); err != nil {
				t.Fatalf("%s() of the whole err = %v, want nil", name, err)
			}
			for n := range p.input {
				if err := p.parse(p.input[:n]); !errors.Is(err, wire.ErrTruncated) {
					t.Errorf("%s() of the first %d bytes err = %v, want %v", name, n, err, wire.ErrTruncated)
				}
			}
			if err := p.parse(append(bytes.Clone(p.input), 0)); !errors.Is(err, wire.ErrTrailing) {
				t.Errorf("%s() with a trailing byte err = %v, want %v", name, err, wire.ErrTrailing)
			}
		})
	}
}

func TestLengthsThatAreNotMinimalAreRefused(t *testing.T) {
	kp := build(t, newTemplate(suiteOf(t, 1))).Bytes()
	// init_key has 32 bytes: its length is one byte, and here two.
	padded := append(bytes.Clone(kp[:4]), 0x40)
	padded = append(padded, kp[4:]...)
	if _, err := keypackage.Parse(padded); !errors.Is(err, wire.ErrLength) {
		t.Errorf("Parse() err = %v, want %v", err, wire.ErrLength)
	}
}

func TestListsOfHalfACodePointAreRefused(t *testing.T) {
	leaf := keypackage.LeafNode{Source: keypackage.SourceUpdate}
	b := leaf.Bytes()
	// encryption_key, signature_key, credential: 1 + 1 + 3 bytes of zeros.
	odd := append(bytes.Clone(b[:5]), 3, 0, 1, 0)
	odd = append(odd, b[6:]...)
	if _, err := keypackage.ParseLeafNode(odd); !errors.Is(err, wire.ErrTruncated) {
		t.Errorf("ParseLeafNode() err = %v, want %v", err, wire.ErrTruncated)
	}
}

func TestUnknownSourceOfALeafNodeIsRefused(t *testing.T) {
	for _, source := range []keypackage.LeafNodeSource{0, 4, 255} {
		leaf := keypackage.LeafNode{Source: source}
		if _, err := keypackage.ParseLeafNode(leaf.Bytes()); !errors.Is(err, keypackage.ErrSource) {
			t.Errorf("ParseLeafNode(source %v) err = %v, want %v", source, err, keypackage.ErrSource)
		}
	}
}

func TestLeafNodesOfEverySourceSurvive(t *testing.T) {
	for _, leaf := range []keypackage.LeafNode{
		{Source: keypackage.SourceKeyPackage, Lifetime: keypackage.Lifetime{NotAfter: 1<<64 - 1}},
		{Source: keypackage.SourceUpdate},
		{Source: keypackage.SourceCommit, ParentHash: []byte("parent")},
	} {
		again, err := keypackage.ParseLeafNode(leaf.Bytes())
		if err != nil {
			t.Fatalf("ParseLeafNode(source %v) err = %v, want nil", leaf.Source, err)
		}
		if again.Lifetime != leaf.Lifetime || !bytes.Equal(again.ParentHash, leaf.ParentHash) {
			t.Errorf("ParseLeafNode() = %+v, want %+v", again, leaf)
		}
		wantEqual(t, "Bytes()", again.Bytes(), leaf.Bytes())
	}
}

func TestCredentialsOfEveryTypeSurvive(t *testing.T) {
	for _, c := range []keypackage.Credential{
		keypackage.BasicCredential([]byte("alice")),
		keypackage.BasicCredential(nil),
		keypackage.X509Credential([][]byte{make([]byte, 900), make([]byte, 40), nil}),
		keypackage.X509Credential(nil),
		{Type: 0xF00D, Raw: []byte{1, 2, 3}},
		{Type: 0x0A0A},
	} {
		again, err := keypackage.ParseCredential(c.Bytes())
		if err != nil {
			t.Fatalf("ParseCredential(%v) err = %v, want nil", c.Type, err)
		}
		if again.Type != c.Type || !bytes.Equal(again.Identity, c.Identity) || !bytes.Equal(again.Raw, c.Raw) || len(again.Certificates) != len(c.Certificates) {
			t.Errorf("ParseCredential() = %+v, want %+v", again, c)
		}
		wantEqual(t, "Bytes()", again.Bytes(), c.Bytes())
	}
}

// The layout of RFC 9420, Sections 5.3, 7.2 and 10, by hand.
func TestBytesAreThoseOfTheRFC(t *testing.T) {
	kp := keypackage.KeyPackage{
		Version:     keypackage.MLS10,
		CipherSuite: 2,
		InitKey:     []byte{0xA1, 0xA2},
		LeafNode: keypackage.LeafNode{
			EncryptionKey: []byte{0xB1},
			SignatureKey:  []byte{0xC1},
			Credential:    keypackage.BasicCredential([]byte("al")),
			Capabilities: keypackage.Capabilities{
				Versions:     []keypackage.ProtocolVersion{1},
				CipherSuites: []ciphersuite.ID{2, 7},
				Extensions:   []keypackage.ExtensionType{0x000A},
				Credentials:  []keypackage.CredentialType{1, 2},
			},
			Source:     keypackage.SourceKeyPackage,
			Lifetime:   keypackage.Lifetime{NotBefore: 1, NotAfter: 2},
			Extensions: []keypackage.Extension{{Type: 1, Data: []byte{0xD1}}},
			Signature:  []byte{0xE1},
		},
		Extensions: []keypackage.Extension{{Type: 0x000A}},
		Signature:  []byte{0xF1},
	}
	want := []byte{0, 1, 0, 2, 2, 0xA1, 0xA2} // version, cipher_suite, init_key
	want = append(want, 1, 0xB1, 1, 0xC1)     // encryption_key, signature_key
	want = append(want, 0, 1, 2, 'a', 'l')    // credential
	want = append(want, 2, 0, 1)              // versions
	want = append(want, 4, 0, 2, 0, 7)        // cipher_suites
	want = append(want, 2, 0, 10, 0)          // extensions, proposals
	want = append(want, 4, 0, 1, 0, 2)        // credentials
	want = append(want, 1)                    // leaf_node_source
	want = binary.BigEndian.AppendUint64(want, 1)
	want = binary.BigEndian.AppendUint64(want, 2)
	want = append(want, 4, 0, 1, 1, 0xD1) // leaf_node.extensions
	want = append(want, 1, 0xE1)          // leaf_node.signature
	want = append(want, 3, 0, 10, 0)      // extensions
	want = append(want, 1, 0xF1)          // signature
	wantEqual(t, "Bytes()", kp.Bytes(), want)
}

func TestParseKeepsNothingOfItsInput(t *testing.T) {
	v := build(t, richTemplate(suiteOf(t, 2)))
	input := bytes.Clone(v.Message())
	m, err := keypackage.ParseMessage(input)
	if err != nil {
		t.Fatal(err)
	}
	kp, err := keypackage.Parse(input[4:])
	if err != nil {
		t.Fatal(err)
	}
	clear(input)
	wantEqual(t, "Parse().Bytes()", kp.Bytes(), v.Bytes())
	wantEqual(t, "ParseMessage().KeyPackage.Bytes()", m.KeyPackage.Bytes(), v.Bytes())
}

func TestAppendingToAFieldLeavesTheNextAlone(t *testing.T) {
	v := build(t, newTemplate(suiteOf(t, 2)))
	kp := v.KeyPackage()
	_ = append(kp.InitKey, 0xFF, 0xFF)
	_ = append(kp.LeafNode.Credential.Identity, 0xFF, 0xFF)
	wantEqual(t, "Bytes()", kp.Bytes(), v.Bytes())
}

func TestRefOfAnUnknownSuiteIsAnError(t *testing.T) {
	kp := keypackage.KeyPackage{CipherSuite: 0x0A0A}
	if ref, err := kp.Ref(); err == nil {
		t.Errorf("Ref() = %v, nil, want an error", ref)
	}
}

func wantEqual(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s = %x, want %x", what, got, want)
	}
}
