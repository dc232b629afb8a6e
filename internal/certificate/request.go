package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrKey reports a key for which this package cannot request a certificate.
var ErrKey = errors.New("certificates can be requested for P-256, P-384, P-521 and Ed25519 keys")

// Request is the content of a certification request.
type Request struct {
	// Subject is a distinguished name as ParseName returns it. It may be empty if there are
	// alternative names.
	Subject pkix.RDNSequence
	// DNSNames, Emails and URIs are the subject's alternative names.
	DNSNames, Emails, URIs []string
}

// Renewal returns the request for the content of an existing certificate, without alternative names
// of other kinds than Request has.
func Renewal(of *x509.Certificate) (Request, error) {
	r := Request{DNSNames: of.DNSNames, Emails: of.EmailAddresses}
	if _, err := asn1.Unmarshal(of.RawSubject, &r.Subject); err != nil {
		return r, fmt.Errorf("read the subject of a certificate: %w", err)
	}
	for _, u := range of.URIs {
		r.URIs = append(r.URIs, u.String())
	}
	return r, nil
}

// DER returns the certification request of PKCS #10 (RFC 2986), signed with the key that it is for.
// It verifies the signature. The error wraps ErrKey for an Ed448 key, which crypto/x509 does not
// know.
func (r Request) DER(key crypto.Signer) ([]byte, error) {
	switch key.Public().(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("make certification request: %w", ErrKey)
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("make certification request: %w", err)
	}
	template := &x509.CertificateRequest{DNSNames: r.DNSNames, EmailAddresses: r.Emails}
	var err error
	if template.RawSubject, err = asn1.Marshal(r.Subject); err != nil {
		return nil, fmt.Errorf("make certification request: encode subject: %w", err)
	}
	for _, text := range r.URIs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("make certification request: %w", err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("make certification request: %w", err)
	}
	made, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = made.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("make certification request: check what was signed: %w", err)
	}
	return der, nil
}

var (
	// dnsName matches a name as certificates carry it (RFC 5280, Section 4.2.1.6). Its first label
	// may be a star (RFC 6125, Section 6.4.3), and underscores, which are common, are allowed.
	dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
	country = regexp.MustCompile(`^[A-Za-z]{2}$`)
)

func ascii(text string) bool {
	return strings.IndexFunc(text, func(c rune) bool { return c >= utf8.RuneSelf }) < 0
}

// Check fails for a request that has neither a subject nor a name, or a name that is not of its
// kind.
func (r Request) Check() error {
	if len(r.Subject) == 0 && len(r.DNSNames)+len(r.Emails)+len(r.URIs) == 0 {
		return errors.New("there is neither a subject nor an alternative name")
	}
	for _, name := range r.DNSNames {
		if !dnsName.MatchString(name) || len(name) > 253 {
			return fmt.Errorf("%q is not a DNS name", name)
		}
	}
	for _, text := range r.Emails {
		if a, err := mail.ParseAddress(text); err != nil || a.Address != text || !ascii(text) {
			return fmt.Errorf("%q is not an e-mail address", text)
		}
	}
	for _, text := range r.URIs {
		if u, err := url.Parse(text); err != nil || u.Scheme == "" {
			return fmt.Errorf("%q is not a URI", text)
		}
	}
	return nil
}

// attributes maps the short names of types, in upper case, to the types: those of RFC 4514, Section
// 3, and other common ones.
var attributes = map[string]asn1.ObjectIdentifier{
	"CN":           {2, 5, 4, 3},
	"SN":           {2, 5, 4, 4},
	"SERIALNUMBER": {2, 5, 4, 5},
	"C":            {2, 5, 4, 6},
	"L":            {2, 5, 4, 7},
	"ST":           {2, 5, 4, 8},
	"STREET":       {2, 5, 4, 9},
	"O":            {2, 5, 4, 10},
	"OU":           {2, 5, 4, 11},
	"TITLE":        {2, 5, 4, 12},
	"POSTALCODE":   {2, 5, 4, 17},
	"GN":           {2, 5, 4, 42},
	"DC":           oidDC,
	"UID":          {0, 9, 2342, 19200300, 100, 1, 1},
	"EMAILADDRESS": oidEmail,
}

var (
	oidDC    = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidEmail = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// ParseName parses a distinguished name in the form of RFC 4514, such as "CN=relay
// 7,OU=Messaging,O=Example". The most specific part is first in the text, and so last in the
// result, as in DER. Types are the short names above or dotted numbers; "+" joins attributes of one
// part; a backslash escapes. Hexadecimal values after # are refused.
func ParseName(text string) (pkix.RDNSequence, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var name pkix.RDNSequence
	for _, part := range splitName(text, ',') {
		var rdn pkix.RelativeDistinguishedNameSET
		for _, pair := range splitName(part, '+') {
			attribute, err := parseAttribute(pair)
			if err != nil {
				return nil, fmt.Errorf("parse distinguished name: %w", err)
			}
			rdn = append(rdn, attribute)
		}
		name = append(pkix.RDNSequence{rdn}, name...)
	}
	return name, nil
}

// splitName splits text at separators without a backslash before them.
func splitName(text string, separator byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case separator:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

func parseAttribute(pair string) (pkix.AttributeTypeAndValue, error) {
	var none pkix.AttributeTypeAndValue
	name, escaped, ok := strings.Cut(pair, "=")
	name = strings.TrimSpace(name)
	if !ok || name == "" {
		return none, fmt.Errorf("%q is not TYPE=VALUE", pair)
	}
	id, known := attributes[strings.ToUpper(name)]
	if !known {
		if id, known = parseOID(name); !known {
			return none, fmt.Errorf("the attribute type %q is not known; write its number with dots", name)
		}
	}
	value, err := unescape(escaped)
	if err != nil {
		return none, fmt.Errorf("the value of %s %w", name, err)
	}
	switch {
	case value == "":
		return none, fmt.Errorf("the value of %s is empty", name)
	case id.Equal(attributes["C"]) && !country.MatchString(value):
		return none, fmt.Errorf("the country %q is not two letters", value)
	}
	if id.Equal(oidDC) || id.Equal(oidEmail) { // IA5String: RFC 4519, Section 2.4; RFC 2985, Section 5.2.1
		if !ascii(value) {
			return none, fmt.Errorf("the value of %s is not ASCII", name)
		}
		return pkix.AttributeTypeAndValue{Type: id, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(value)}}, nil
	}
	return pkix.AttributeTypeAndValue{Type: id, Value: value}, nil
}

func parseOID(text string) (asn1.ObjectIdentifier, bool) {
	var id asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, false
		}
		id = append(id, int(n))
	}
	_, err := asn1.Marshal(id) // it checks which arcs can be first
	return id, err == nil
}

// unescape decodes a value (RFC 4514, Section 2.4). It drops spaces around it unless they are
// escaped.
func unescape(text string) (string, error) {
	text = strings.TrimLeft(text, " ")
	if strings.HasPrefix(text, "#") {
		return "", errors.New("is hexadecimal after #, which is not supported")
	}
	var b []byte
	kept := 0 // the length of b without trailing spaces
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 == len(text):
			return "", errors.New("ends with a backslash")
		case c == '\\' && strings.IndexByte(` "#+,;<=>\`, text[i+1]) >= 0:
			i++
			b = append(b, text[i])
			kept = len(b)
		case c == '\\':
			octet, err := hex.DecodeString(text[i+1 : min(i+3, len(text))])
			if err != nil {
				return "", errors.New("has a backslash before a character that needs none")
			}
			i += 2
			b = append(b, octet...)
			kept = len(b)
		case strings.IndexByte(`"+,;<>`, c) >= 0 || c == 0:
			return "", fmt.Errorf("has a %q that needs a backslash before it", c)
		default:
			b = append(b, c)
			if c != ' ' {
				kept = len(b)
			}
		}
	}
	b = b[:kept]
	if !utf8.Valid(b) {
		return "", errors.New("is not UTF-8")
	}
	return string(b), nil
}

// EscapeValue escapes text so that ParseName parses it as a value.
func EscapeValue(text string) string {
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case strings.IndexByte(`"+,;<>\=#`, c) >= 0, c == ' ' && (i == 0 || i == len(text)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ':
			fmt.Fprintf(&b, `\%02X`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
