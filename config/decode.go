package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Fault is one thing that is wrong with a config file.
type Fault struct {
	Line    int    // 0: unknown
	Message string // without the value of a field that could be a secret
}

// String writes the fault as a person reads it.
func (f Fault) String() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Error is a config file that cannot be used: Cause where it could not be read
// at all, else all of its faults.
type Error struct {
	Path   string
	Faults []Fault
	Cause  error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("config")
	if e.Path != "" {
		fmt.Fprintf(&b, " %s", e.Path)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", cause(e.Cause))
		return b.String()
	}
	if len(e.Faults) == 1 {
		fmt.Fprintf(&b, ": %v", e.Faults[0])
		return b.String()
	}
	fmt.Fprintf(&b, " has %d faults", len(e.Faults))
	for _, f := range e.Faults {
		fmt.Fprintf(&b, "\n%v", f)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// cause takes the operation and the path, which stand before it already, out of
// an error of the file system.
func cause(err error) error {
	type pathError interface {
		error
		Timeout() bool
		Unwrap() error
	}
	if p, ok := err.(pathError); ok {
		return p.Unwrap()
	}
	return err
}

func inOrder(faults []Fault) []Fault {
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return faults
}

// decode fills c from data. It returns the faults of form and, for the faults
// of content, the line of each key by its path, such as "token.pin".
func decode(data []byte, c *Config) ([]Fault, map[string]int) {
	lines := make(map[string]int)
	var document yaml.Node
	if err := yaml.Load(data, &document); err == nil {
		for _, n := range document.Content {
			collectLines(n, "", lines)
		}
	}
	err := yaml.Load(data, c, yaml.WithKnownFields())
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case err == nil:
		return nil, lines
	case errors.As(err, &many):
		var faults []Fault
		for _, e := range many.Errors {
			faults = append(faults, faultOf(e))
		}
		return faults, lines
	case errors.As(err, &one):
		return []Fault{faultOf(one)}, lines
	}
	return []Fault{{Message: "it is not YAML"}}, lines
}

// collectLines notes the line of each key below n.
func collectLines(n *yaml.Node, path string, lines map[string]int) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		name := strings.TrimPrefix(path+"."+key.Value, ".")
		lines[name] = key.Line
		collectLines(n.Content[i+1], name, lines)
	}
}

// What the YAML library says of a document that does not fit a Config. It names
// Go types, and repeats values, which might be a PIN in the wrong place.
var (
	unknownKey = regexp.MustCompile(`field (\S+) not found in type`)
	wrongKind  = regexp.MustCompile("(?s)cannot construct !!(\\w+).* into (\\S+)")
)

// faultOf words an error of the YAML library for a person.
func faultOf(e *yaml.LoadError) Fault {
	message := e.Message
	if m := unknownKey.FindStringSubmatch(message); m != nil {
		message = fmt.Sprintf("unknown key %q", m[1])
	} else if m := wrongKind.FindStringSubmatch(message); m != nil {
		message = fmt.Sprintf("%s is wanted here, not %s", kindOf(m[2]), tagName(m[1]))
	}
	return Fault{Line: e.Mark.Line, Message: message}
}

// kindOf names what a Go type is in YAML.
func kindOf(goType string) string {
	switch strings.TrimLeft(goType, "*") {
	case "int", "uint", "uint16":
		return "a number"
	case "bool":
		return "true or false"
	case "string":
		return "a text"
	case "config.PIN":
		return "one of env, file, fd, systemd and prompt"
	}
	if strings.HasPrefix(goType, "[]") {
		return "a list"
	}
	return "a group of keys"
}

// tagName names what a YAML tag is.
func tagName(tag string) string {
	switch tag {
	case "int", "float":
		return "a number"
	case "bool":
		return "true or false"
	case "str":
		return "a text"
	case "seq":
		return "a list"
	case "map":
		return "a group of keys"
	case "null":
		return "nothing"
	}
	return "a " + tag
}
