package config

import (
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

func isNothing(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// text decodes any scalar as text: a label may consist of digits.
func text(to *string) field {
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || isNothing(n) {
			d.fault(path, n, "must be a text")
			return
		}
		if strings.ContainsRune(n.Value, 0) { // it would end a path, a label or a variable early
			d.fault(path, n, "must not have a zero byte")
			return
		}
		*to = n.Value
	}
}

// truth decodes true and false, but not YAML's older yes, no, on and off.
func truth(to *bool) field {
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
			d.fault(path, n, "must be true or false")
			return
		}
		*to = n.Value == "true"
	}
}

// optionalTruth decodes true and false, and keeps a missing value apart from both.
func optionalTruth(to **bool) field {
	return func(d *decoder, path string, n *yaml.Node) {
		v := new(bool)
		if truth(v)(d, path, n); !d.unfit[path] {
			*to = v
		}
	}
}

// number decodes a whole number from low to high.
func number[T int | uint | uint16 | uint64](to *T, low, high int64) field {
	return func(d *decoder, path string, n *yaml.Node) {
		v, ok := whole(n)
		switch {
		case !ok:
			d.fault(path, n, "must be a whole number")
		case v < low || v > high:
			d.fault(path, n, "must be from %d to %d", low, high)
		default:
			*to = T(v)
		}
	}
}

// codePoint decodes a code point of RFC 9420, Section 17.
func codePoint(to *uint16) field { return number(to, 0, math.MaxUint16) }

// optional decodes an optional number from 0 to high.
func optional[T int | uint](to **T, high int64) field {
	return func(d *decoder, path string, n *yaml.Node) {
		v := new(T)
		if number(v, 0, high)(d, path, n); !d.unfit[path] {
			*to = v
		}
	}
}

// whole parses a number in one of YAML's bases. A text in quotes is not a number.
func whole(n *yaml.Node) (int64, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		return 0, false
	}
	var v int64
	err := n.Load(&v)
	return v, err == nil
}

// octets decodes bytes in hexadecimal.
func octets(to *[]byte) field {
	return func(d *decoder, path string, n *yaml.Node) {
		b, err := hex.DecodeString(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			d.fault(path, n, "must be hexadecimal digits, two a byte, in quotes")
			return
		}
		*to = b
	}
}

func duration(to *Duration) field {
	return func(d *decoder, path string, n *yaml.Node) {
		v, err := ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			d.fault(path, n, "must be a duration such as 84d, 36h, 1d12h or 90m")
			return
		}
		*to = v
	}
}

// list decodes a list, each element with item.
func list[T any](to *[]T, item func(*T) field) field {
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.fault(path, n, "must be a list")
			return
		}
		*to = make([]T, len(n.Content))
		for i, element := range n.Content {
			of := fmt.Sprintf("%s[%d]", path, i)
			d.lines[of] = element.Line
			item(&(*to)[i])(d, of, follow(element))
		}
	}
}

// named decodes a group whose keys are names that the user chooses. They are quoted in paths, as
// they may contain dots.
func named[T any](to *map[string]T, fields func(*T) keys) field {
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			d.fault(path, n, "must be a group of names")
			return
		}
		*to = make(map[string]T)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], follow(n.Content[i+1])
			if key.Kind != yaml.ScalarNode {
				d.fault(path, key, "must have names for keys")
				continue
			}
			name := path + "." + strconv.Quote(key.Value)
			if first, twice := d.lines[name]; twice {
				d.fault(name, key, "is set twice, first on line %d", first)
				continue
			}
			d.lines[name] = key.Line
			var v T
			if !isNothing(value) {
				group(fields(&v))(d, name, value)
			}
			(*to)[key.Value] = v
		}
	}
}

// variableName matches a name that POSIX allows for an environment variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// variables decodes a group of environment variables, each with a text.
func variables(to *map[string]string) field {
	return func(d *decoder, path string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			d.fault(path, n, "must be a group of keys")
			return
		}
		of := make(keys)
		values := make(map[string]*string)
		for i := 0; i+1 < len(n.Content); i += 2 {
			if key := n.Content[i]; key.Kind == yaml.ScalarNode && variableName.MatchString(key.Value) && values[key.Value] == nil {
				values[key.Value] = new(string)
				of[key.Value] = text(values[key.Value])
			}
		}
		d.group(path, n, of)
		*to = make(map[string]string, len(values))
		for name, value := range values {
			(*to)[name] = *value
		}
	}
}
