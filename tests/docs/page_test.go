// Package docs compares the pages with the program: their sessions run and print what the page
// shows, their configs load, their links have targets.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// pages returns the Markdown files that people read, relative to the root.
func pages(t *testing.T) []string {
	t.Helper()
	root := program.Root()
	all := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md"}
	for _, dir := range []string{"docs", "integrations"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && (e.Name() == "node_modules" || e.Name() == "target") {
				return fs.SkipDir
			}
			if strings.HasSuffix(path, ".md") {
				relative, _ := filepath.Rel(root, path)
				all = append(all, relative)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// read returns the text of a page.
func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program.Root(), page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block is a part of a page: text, or the lines between two fences.
type block struct {
	fenced bool
	info   string // after the opening fence, such as "yaml"
	body   string
}

// blocksOf splits a page at its fences, which are at the beginning of a line.
func blocksOf(page string) []block {
	blocks := []block{{}}
	fenced := false
	for line := range strings.Lines(page) {
		mark, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && fenced:
			fenced = false
			blocks = append(blocks, block{})
		case isFence:
			fenced = true
			blocks = append(blocks, block{fenced: true, info: strings.TrimSpace(mark)})
		default:
			blocks[len(blocks)-1].body += line
		}
	}
	return blocks
}

// String returns the block as in a page.
func (b block) String() string {
	if !b.fenced {
		return b.body
	}
	return "```" + b.info + "\n" + b.body + "```\n"
}

func TestBlocksAreThePage(t *testing.T) {
	for _, page := range pages(t) {
		var b strings.Builder
		for _, part := range blocksOf(read(t, page)) {
			b.WriteString(part.String())
		}
		if b.String() != read(t, page) {
			t.Errorf("%s: a fence has no end", page)
		}
	}
}

// Each session is in a block of its own: otherwise no test would run it.
func TestSessionsAreConsoleBlocks(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range blocksOf(read(t, page)) {
			if b.info != "console" && regexp.MustCompile(`(?m)^ *\$ `).MatchString(b.body) {
				t.Errorf("%s: a command after \"$ \" stands outside of a console block:\n%s", page, b.body)
			}
		}
	}
}

// The front page is short, because a new reader reads no more than this.
func TestREADMEIsShort(t *testing.T) {
	if n := len(read(t, "README.md")); n >= 12_000 {
		t.Errorf("README.md has %d bytes, want less than 12,000", n)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]*)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range blocksOf(read(t, page)) {
			if b.fenced {
				continue
			}
			for _, m := range link.FindAllStringSubmatch(b.body, -1) {
				checkLink(t, page, m[1])
			}
		}
	}
}

func checkLink(t *testing.T, page, to string) {
	t.Helper()
	if strings.Contains(to, "://") {
		return
	}
	file, anchor, _ := strings.Cut(to, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), file)
	}
	if _, err := os.Stat(filepath.Join(program.Root(), target)); err != nil {
		t.Errorf("%s: a link to %s, which is not there", page, to)
		return
	}
	if anchor != "" && !slices.Contains(anchorsOf(read(t, target)), anchor) {
		t.Errorf("%s: a link to %s, and %s has no such heading", page, to, target)
	}
}

// anchorsOf returns the anchors of a page's headings, as GitHub makes them.
func anchorsOf(page string) (anchors []string) {
	for _, b := range blocksOf(page) {
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(b.body, -1) {
			kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
			anchors = append(anchors, strings.ReplaceAll(kept, " ", "-"))
		}
	}
	return anchors
}
