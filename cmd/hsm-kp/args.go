package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// intersperse returns args in the order that urfave/cli v2 wants: flags before
// arguments, at each level. People write `hsm-kp export REF --out DIR`; the
// library stops looking for flags at REF. Flags of the program itself, such as
// --config, may stand anywhere. Everything after -- stays as it is.
func intersperse(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 || completing(args) {
		return args, nil
	}
	var global, command, words, verbs []string
	commands, flags := app.Commands, app.Flags
	rest := args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			words = append(words, rest...)
			rest = nil
		case len(arg) > 1 && arg[0] == '-':
			taken, isGlobal := []string{arg}, false
			flag := findFlag(flags, arg)
			if flag == nil {
				flag = findFlag(app.Flags, arg)
				isGlobal = flag != nil
			}
			isGlobal = isGlobal || len(verbs) == 0
			if takesValue(flag) && !strings.Contains(arg, "=") {
				if len(rest) == 0 {
					return nil, usagef("flag needs an argument: %s", arg)
				}
				taken = append(taken, rest[0])
				rest = rest[1:]
			}
			if isGlobal {
				global = append(global, taken...)
			} else {
				command = append(command, taken...)
			}
		default:
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(arg) })
			if len(words) > 0 || i < 0 {
				words = append(words, arg)
				continue
			}
			verbs = append(verbs, arg)
			flags = append(slices.Clone(flags), commands[i].Flags...)
			if len(verbs) == 1 {
				flags = slices.Clone(commands[i].Flags)
			}
			commands = commands[i].Subcommands
		}
	}
	if len(verbs) > 0 && slices.ContainsFunc(command, func(arg string) bool { return arg == "--help" || arg == "-h" }) {
		words = nil // the library would read one as the name of a subcommand
	}
	out := append([]string{args[0]}, global...)
	out = append(append(out, verbs...), command...)
	if len(words) > 0 {
		out = append(append(out, "--"), words...)
	}
	return out, nil
}

// completing reports whether a shell asks which words may come next, instead of
// executing the command.
func completing(args []string) bool {
	return len(args) > 0 && args[len(args)-1] == "--generate-bash-completion"
}

// findFlag returns the flag that arg names, or nil.
func findFlag(flags []cli.Flag, arg string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// takesValue reports whether a flag is followed by a value.
func takesValue(f cli.Flag) bool {
	if f == nil {
		return false
	}
	_, isBool := f.(*cli.BoolFlag)
	return !isBool
}

// usageError is a command line that cannot be understood: exit status 2.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// wantArgs checks the number of arguments and names what is missing.
func wantArgs(c *cli.Context, names ...string) error {
	switch {
	case c.NArg() < len(names):
		return usagef("%s: %s is missing", c.Command.HelpName, names[c.NArg()])
	case c.NArg() > len(names):
		return usagef("%s: %q is one argument too many", c.Command.HelpName, c.Args().Get(len(names)))
	}
	return nil
}

// wantSomeArgs checks that there is at least one argument.
func wantSomeArgs(c *cli.Context, name string) error {
	if c.NArg() == 0 {
		return usagef("%s: %s is missing", c.Command.HelpName, name)
	}
	return nil
}
