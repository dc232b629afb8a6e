package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The decoder walks the YAML tree by the table of fields below instead of letting the YAML library
// fill the structs: the library names Go types and repeats values in its errors, and stops at the
// first duplicate key.

// keys maps the keys of a group to their fields.
type keys map[string]field

// field decodes the value at path. It notes a fault if the value is not valid.
type field func(d *decoder, path string, n *yaml.Node)

// fields maps the keys of a config file to the fields of c.
func (c *Config) fields() keys {
	return keys{
		"token": group(keys{
			"module":      text(&c.Token.Module),
			"uri":         text(&c.Token.URI),
			"label":       text(&c.Token.Label),
			"serial":      text(&c.Token.Serial),
			"slot":        optional(&c.Token.Slot, math.MaxUint32),
			"pin":         pin(&c.Token.PIN),
			"sessions":    number(&c.Token.Sessions, 1, 1024),
			"timeout":     duration(&c.Token.Timeout),
			"recovery":    duration(&c.Token.Recovery),
			"environment": variables(&c.Token.Environment),
			"vendor":      text(&c.Token.Vendor),
			"quirks":      group(c.Token.Quirks.fields()),
		}),
		"store": group(keys{
			"url":   text(&c.Store.URL),
			"batch": number(&c.Store.Batch, 1, 10000),
		}),
		"key_packages": group(keys{
			"suite":    text(&c.KeyPackages.Suite),
			"lifetime": duration(&c.KeyPackages.Lifetime),
			"backdate": duration(&c.KeyPackages.Backdate),
			"grace":    duration(&c.KeyPackages.Grace),
			"custody":  text(&c.KeyPackages.Custody),
			"last_resort": group(keys{
				"max_age": duration(&c.KeyPackages.LastResort.MaxAge),
			}),
			"capabilities": group(c.KeyPackages.Capabilities.fields()),
			"grease":       truth(&c.KeyPackages.GREASE),
			"required_capabilities": group(keys{
				"extensions":  list(&c.KeyPackages.Required.Extensions, codePoint),
				"proposals":   list(&c.KeyPackages.Required.Proposals, codePoint),
				"credentials": list(&c.KeyPackages.Required.Credentials, codePoint),
			}),
			"leaf_extensions": list(&c.KeyPackages.LeafExtensions, extension),
			"extensions":      list(&c.KeyPackages.Extensions, extension),
			"peers":           list(&c.KeyPackages.Peers, text),
		}),
		"experimental": group(keys{
			"enabled": truth(&c.Experimental.Enabled),
			"suites":  list(&c.Experimental.Suites, suite),
		}),
		"x509": group(keys{
			"roots":   text(&c.X509.Roots),
			"subject": text(&c.X509.Subject),
			"enroll": group(keys{
				"command": list(&c.X509.Enroll.Command, text),
				"timeout": duration(&c.X509.Enroll.Timeout),
			}),
		}),
		"identities": named(&c.Identities, (*Identity).fields),
		"wrapping_keys": group(keys{
			"max_age":   duration(&c.WrappingKeys.MaxAge),
			"max_uses":  number(&c.WrappingKeys.MaxUses, 1, 1<<31),
			"automatic": truth(&c.WrappingKeys.Automatic),
		}),
		"audit": group(keys{
			"origin": text(&c.Audit.Origin),
		}),
		"welcome": group(keys{
			"reservation": duration(&c.Welcome.Reservation),
		}),
		"directories": list(&c.Directories, directory),
		"replenish":   group(c.Replenish.fields()),
		"unwrap": group(keys{
			"allow": truth(&c.Unwrap.Allow),
		}),
		"server": group(c.Server.fields()),
	}
}

func (q *Quirks) fields() keys {
	return keys{
		"init_args":     text(&q.InitArgs),
		"kwp":           number(&q.KWP, 1, math.MaxUint32),
		"unwrap_point":  optionalTruth(&q.UnwrapPoint),
		"local_untold":  optionalTruth(&q.LocalUntold),
		"one_at_a_time": optionalTruth(&q.OneAtATime),
		"token_nonce":   optionalTruth(&q.TokenNonce),
		"gone_codes":    list(&q.GoneCodes, vendorCode),
		"library_calls": optionalTruth(&q.LibraryCalls),
		"token_objects": optionalTruth(&q.TokenObjects),
	}
}

// vendorCode decodes a return value that the standard leaves to vendors: CKR_VENDOR_DEFINED and
// above.
func vendorCode(to *uint) field { return number(to, 0x80000000, math.MaxUint32) }

func (c *Capabilities) fields() keys {
	return keys{
		"cipher_suites": list(&c.CipherSuites, text),
		"extensions":    list(&c.Extensions, codePoint),
		"proposals":     list(&c.Proposals, codePoint),
	}
}

func (i *Identity) fields() keys {
	return keys{
		"subject":        text(&i.Subject),
		"dns_names":      list(&i.DNSNames, text),
		"emails":         list(&i.Emails, text),
		"uris":           list(&i.URIs, text),
		"application_id": text(&i.ApplicationID),
		"custody":        text(&i.Custody),
		"replenish":      group(i.Replenish.fields()),
		"capabilities": func(d *decoder, path string, n *yaml.Node) {
			i.Capabilities = new(Capabilities)
			group(i.Capabilities.fields())(d, path, n)
		},
	}
}

// suite decodes an experimental suite, which must have all parts.
func suite(to *Suite) field {
	of := keys{
		"number": codePoint(&to.Number), "name": text(&to.Name), "kem": text(&to.KEM),
		"aead": text(&to.AEAD), "hash": text(&to.Hash), "signature": text(&to.Signature),
	}
	return func(d *decoder, path string, n *yaml.Node) {
		if group(of)(d, path, n); d.unfit[path] {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(of)) {
			if d.lines[path+"."+name] == 0 {
				d.fault(path, n, "must have a %s", name)
				return
			}
		}
	}
}

// extension decodes an extension. Its data may be missing, which means empty.
func extension(to *Extension) field {
	return func(d *decoder, path string, n *yaml.Node) {
		group(keys{"type": codePoint(&to.Type), "data": octets(&to.Data)})(d, path, n)
		if !d.unfit[path] && !d.unfit[path+".type"] && d.lines[path+".type"] == 0 {
			d.fault(path, n, "must have a type")
		}
	}
}

// pin decodes the group pin. Its faults tell a user who writes the PIN itself there what belongs
// there.
func pin(to *PIN) field {
	of := keys{
		"env":     text(&to.Env),
		"file":    text(&to.File),
		"fd":      optional(&to.FD, math.MaxInt32),
		"systemd": text(&to.Systemd),
		"prompt":  truth(&to.Prompt),
	}
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			d.fault(path, n, "must say where the PIN comes from, by one of env, file, fd, systemd and prompt; the PIN itself does not belong here")
			return
		}
		d.group(path, n, of)
	}
}

// decoder collects the faults in the form of a file.
type decoder struct {
	faults []Fault
	// lines is the line of each key by its path, such as "token.pin", for the faults of content.
	lines map[string]int
	// unfit has the paths whose values have the wrong form: their content is not checked.
	unfit map[string]bool
}

// fault notes that the value at path has the wrong form.
func (d *decoder) fault(path string, n *yaml.Node, format string, args ...any) {
	d.unfit[path] = true
	d.faults = append(d.faults, Fault{n.Line, path + " " + fmt.Sprintf(format, args...)})
}

// decode fills c from data. It fails if data is not a single YAML mapping.
func decode(data []byte, c *Config) (*decoder, error) {
	root, err := parse(data)
	if err != nil {
		return nil, err
	}
	d := &decoder{lines: make(map[string]int), unfit: make(map[string]bool)}
	d.group("", root, c.fields())
	return d, nil
}

// errManyDocuments reports a file with "---" between documents.
var errManyDocuments = errors.New("it has more than one YAML document")

// parse returns the one mapping in data.
func parse(data []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var document, more yaml.Node
	switch err := loader.Load(&document); {
	case err == io.EOF:
		return nil, errEmpty
	case err != nil:
		return nil, notYAML(err)
	}
	switch err := loader.Load(&more); {
	case err == nil:
		return nil, errManyDocuments
	case err != io.EOF:
		return nil, notYAML(err)
	}
	root := &document
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	switch {
	case isNothing(root):
		return nil, errEmpty
	case root.Kind != yaml.MappingNode:
		return nil, errors.New("it must be a group of keys: token, store, key_packages and so on")
	}
	return root, nil
}

// notYAML converts an error of the YAML library. It does not name an alias: a text that begins with
// * might be one by mistake.
func notYAML(err error) error {
	e, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case !ok:
		return errors.New("it is not YAML")
	case strings.Contains(e.Message, "anchor"):
		return fmt.Errorf("line %d: an alias without its anchor; a text that begins with * needs quotes", e.Mark.Line)
	case e.Mark.Line == 0:
		return fmt.Errorf("it is not YAML: %s", e.Message)
	}
	return fmt.Errorf("line %d: it is not YAML: %s", e.Mark.Line, e.Message)
}

// group decodes a group of keys. A missing value is a group without keys.
func group(of keys) field {
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			d.fault(path, n, "must be a group of keys")
			return
		}
		d.group(path, n, of)
	}
}

// plainKey matches what a misspelt key looks like and a PIN hardly does. In token.pin it might be a
// PIN, so no key is repeated there.
var plainKey = regexp.MustCompile(`^[A-Za-z_-]{1,40}$`)

func (d *decoder) group(path string, n *yaml.Node, of keys) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		value = follow(value)
		name := strings.TrimPrefix(path+"."+key.Value, ".")
		take, known := of[key.Value]
		switch first, twice := d.lines[name]; {
		case !known || key.Kind != yaml.ScalarNode:
			d.faults = append(d.faults, Fault{key.Line, unknown(key, path)})
			continue
		case twice:
			d.faults = append(d.faults, Fault{key.Line, fmt.Sprintf("%s is set twice, first on line %d", name, first)})
			continue
		}
		d.lines[name] = key.Line
		if !isNothing(value) { // "key:" alone keeps the default
			take(d, name, value)
		}
	}
}

// follow returns the target of an alias, at the alias's line.
func follow(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.AliasNode {
		return n
	}
	there := *n.Alias
	there.Line = n.Line
	return &there
}

func unknown(key *yaml.Node, path string) string {
	if path == "token.environment" {
		return path + " has an invalid variable name"
	}
	what := "an unknown key"
	if key.Kind == yaml.ScalarNode && path != "token.pin" && plainKey.MatchString(key.Value) {
		what = fmt.Sprintf("unknown key %q", key.Value)
	}
	if path != "" {
		what += " in " + path
	}
	return what
}
