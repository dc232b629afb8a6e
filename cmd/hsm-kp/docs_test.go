package main

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Whatever command line a page shows, with its options, is one that hsm-kp knows.
func TestPagesShowKnownCommandLines(t *testing.T) {
	shown := 0
	for _, page := range markdownPages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(string(text)) {
			shown++
			if err := parse(line); err != nil {
				t.Errorf("%s: hsm-kp %s: %v", page, strings.Join(line, " "), err)
			}
		}
	}
	if shown < 200 {
		t.Errorf("the pages show %d command lines, want 200 at least", shown)
	}
}

func TestParseRefusesWhatIsNotThere(t *testing.T) {
	for _, line := range []string{"audit show --acts claimed", "identity forget alice", "welcom open", "--sotre x list"} {
		if parse(strings.Fields(line)) == nil {
			t.Errorf("parse(%q) err = nil, want one", line)
		}
	}
}

func markdownPages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"../../docs", "../../integrations"} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && (e.Name() == "node_modules" || e.Name() == "target") {
				return fs.SkipDir
			}
			if strings.HasSuffix(path, ".md") {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

var (
	// inText is a command line in a sentence, inBlock one at the beginning of a line of a block.
	inText  = regexp.MustCompile("`hsm-kp\\s+([^`]+)`")
	inBlock = regexp.MustCompile(`(?m)^(?:    |\$ |.*(?:\||&&|\$\() *)?hsm-kp ((?:[^\n|&;>#]|\\\n)+)`)
	quoted  = regexp.MustCompile(`'[^']*'|"[^"]*"|\$\([^)]*\)`)
)

// commandLines returns the arguments of all hsm-kp command lines of a page.
func commandLines(page string) (lines [][]string) {
	blocks := strings.Split(page, "\n```")
	for i, part := range blocks {
		find := inText
		if i%2 == 1 {
			find = inBlock
		}
		for _, m := range find.FindAllStringSubmatch(part, -1) {
			if words := argumentsOf(m[1]); len(words) > 0 {
				lines = append(lines, words)
			}
		}
	}
	return lines
}

// argumentsOf cuts a command line into words, up to the first that is the shell's.
func argumentsOf(line string) (words []string) {
	line = quoted.ReplaceAllString(strings.ReplaceAll(line, "\\\n", " "), "TEXT")
	for _, word := range strings.Fields(line) {
		if strings.ContainsAny(word, "|&;<>") || word == "…" {
			break
		}
		if word = strings.TrimSuffix(word, ")"); word == "N" {
			word = "1" // what a page calls a number
		}
		words = append(words, word)
	}
	return words
}

// parse has the command line read as main reads it, and nothing done.
func parse(args []string) error {
	app := newApp(&ui{in: strings.NewReader(""), out: bufio.NewWriter(io.Discard), errOut: io.Discard})
	app.Before = nil
	disarm(app.Commands)
	app.Action = func(c *cli.Context) error {
		if c.NArg() > 0 {
			return usagef("there is no command %q", c.Args().First())
		}
		return nil
	}
	ordered, err := intersperse(app, append([]string{"hsm-kp"}, args...))
	if err != nil {
		return err
	}
	return app.Run(ordered)
}

// disarm takes the acts out of commands, and refuses words that a group of commands does not have.
func disarm(commands []*cli.Command) {
	for _, c := range commands {
		c.Before = nil
		c.Action = func(*cli.Context) error { return nil }
		if len(c.Subcommands) > 0 {
			c.Action = func(c *cli.Context) error {
				if c.NArg() > 0 {
					return usagef("%s has no command %q", c.Command.Name, c.Args().First())
				}
				return nil
			}
		}
		disarm(c.Subcommands)
	}
}
