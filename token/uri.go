package token

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// URI is a PKCS#11 URI (RFC 7512), decoded. An empty field was not given.
type URI struct {
	// Path attributes: what the URI names.
	Token        string
	Serial       string
	Manufacturer string
	Model        string
	SlotID       *uint
	Object       string // CKA_LABEL
	ID           []byte // CKA_ID
	Type         string // "cert", "data", "private", "public" or "secret-key"

	// Query attributes: how to get there.
	ModulePath string
	PINSource  string

	// Others holds the path attributes that are not used here, with their values. Each narrows
	// what the URI names, so they cannot be ignored: see Apply.
	Others map[string]string
}

// ParseURI decodes a PKCS#11 URI. An attribute may be given once (RFC 7512, Section 2.3).
// pin-value is refused: a URI goes into files, logs and process lists. Unknown query attributes
// are ignored: they do not say what the URI names.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		return URI{}, fmt.Errorf("parse PKCS#11 URI: %w", err)
	}
	return u, nil
}

func parseURI(s string) (u URI, err error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkcs11") {
		return URI{}, errors.New(`it does not begin with "pkcs11:"`)
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if err := eachAttribute(path, ";", u.setPath); err != nil {
		return URI{}, err
	}
	if hasQuery {
		if err := eachAttribute(query, "&", u.setQuery); err != nil {
			return URI{}, err
		}
	}
	return u, nil
}

// eachAttribute decodes the attributes of a list and calls set for each.
func eachAttribute(list, separator string, set func(name, value string) error) error {
	if list == "" {
		return nil
	}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(list, separator) {
		name, raw, ok := strings.Cut(part, "=")
		if !ok || !attributeName(name) {
			return fmt.Errorf("attribute %d is not name=value", len(seen)+1)
		}
		if seen[name] {
			return fmt.Errorf("attribute %s is given twice", name)
		}
		seen[name] = true
		value, err := decodeValue(raw)
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// attributeName reports whether name consists of the characters that RFC 7512, Section 2.3,
// allows.
func attributeName(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

func decodeValue(raw string) (string, error) {
	if strings.ContainsAny(raw, "# \t\r\n") {
		return "", errors.New("a blank or # has to be percent-encoded")
	}
	value, err := url.PathUnescape(raw) // leaves + as it is (RFC 3986)
	if err != nil {
		return "", errors.New("bad percent-encoding")
	}
	return value, nil
}

func (u *URI) setPath(name, value string) error {
	switch name {
	case "token":
		u.Token = value
	case "serial":
		u.Serial = value
	case "manufacturer":
		u.Manufacturer = value
	case "model":
		u.Model = value
	case "object":
		u.Object = value
	case "id":
		u.ID = []byte(value)
	case "type":
		u.Type = value
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, strconv.IntSize)
		if err != nil {
			return errors.New("attribute slot-id is not a decimal number")
		}
		slot := uint(n)
		u.SlotID = &slot
	default:
		if u.Others == nil {
			u.Others = make(map[string]string)
		}
		u.Others[name] = value
	}
	return nil
}

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "module-path":
		u.ModulePath = value
	case "pin-source":
		u.PINSource = value
	case "pin-value":
		return errors.New("a PIN in a URI is not accepted: pin-value")
	}
	return nil
}

// Apply fills in module, token and PIN from the URI. It fails, and leaves cfg as it was, if cfg
// already has another value, or if the URI asks for something that cannot be done. Object, ID and
// Type name a key in the token, which is left to the caller.
func (u URI) Apply(cfg *Config) error {
	next := *cfg
	err := errors.Join(
		u.requireUsable(),
		fill(&next.Module, u.ModulePath, "module-path"),
		fill(&next.Label, u.Token, "token"),
		fill(&next.Serial, u.Serial, "serial"),
		fill(&next.Manufacturer, u.Manufacturer, "manufacturer"),
		fill(&next.Model, u.Model, "model"),
		u.fillSlot(&next),
		u.fillPIN(&next),
	)
	if err != nil {
		return fmt.Errorf("use PKCS#11 URI: %w", err)
	}
	*cfg = next
	return nil
}

func (u URI) requireUsable() error {
	for name := range u.Others {
		return fmt.Errorf("tokens cannot be chosen by %s", name)
	}
	return nil
}

func fill(field *string, value, name string) error {
	if value == "" {
		return nil
	}
	if *field != "" && *field != value {
		return fmt.Errorf("%s is %q in the URI and %q beside it", name, value, *field)
	}
	*field = value
	return nil
}

func (u URI) fillSlot(cfg *Config) error {
	if u.SlotID == nil {
		return nil
	}
	if cfg.Slot != nil && *cfg.Slot != *u.SlotID {
		return fmt.Errorf("slot-id is %d in the URI and %d beside it", *u.SlotID, *cfg.Slot)
	}
	cfg.Slot = u.SlotID
	return nil
}

// fillPIN takes pin-source as a file: URI or a path (RFC 7512, Section 2.4). A
// command to run ("|...") is not accepted.
func (u URI) fillPIN(cfg *Config) error {
	if u.PINSource == "" {
		return nil
	}
	if cfg.PIN != nil {
		return errors.New("pin-source is in the URI and another source beside it")
	}
	path, ok := strings.CutPrefix(u.PINSource, "file:")
	if ok {
		path = strings.TrimPrefix(path, "//") // an empty authority, as in file:///path
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("pin-source %q is not an absolute path of a file", u.PINSource)
	}
	cfg.PIN = File(path)
	return nil
}

// Query returns the key that the URI names.
func (u URI) Query() KeyQuery { return KeyQuery{ID: u.ID, Label: u.Object} }

// String encodes the URI. Attributes come in a fixed order; every byte that is
// not a letter, a digit or one of "-._~" is percent-encoded.
func (u URI) String() string {
	var path, query []string
	add := func(list *[]string, name, value string) {
		if value != "" {
			*list = append(*list, name+"="+encodeValue(value))
		}
	}
	add(&path, "token", u.Token)
	add(&path, "serial", u.Serial)
	add(&path, "manufacturer", u.Manufacturer)
	add(&path, "model", u.Model)
	if u.SlotID != nil {
		add(&path, "slot-id", strconv.FormatUint(uint64(*u.SlotID), 10))
	}
	add(&path, "object", u.Object)
	add(&path, "id", string(u.ID))
	add(&path, "type", u.Type)
	for _, name := range slices.Sorted(maps.Keys(u.Others)) {
		path = append(path, name+"="+encodeValue(u.Others[name]))
	}
	add(&query, "module-path", u.ModulePath)
	add(&query, "pin-source", u.PINSource)
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

func encodeValue(value string) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		if strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}
