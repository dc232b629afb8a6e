package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// write writes docs/INTEROP.md. It has nothing in it that differs between two runs
// with the same versions.
func (r *results) write(t *testing.T) {
	t.Helper()
	var d document
	d.line("# Interoperability")
	d.line("")
	d.line("For those who write an MLS client: what other MLS libraries make of key packages of hsm-kp.")
	d.line("`make interop` writes this page. It builds the libraries below with their own tools, runs")
	d.line("each in a process of its own, and gives them key packages whose signature keys are in a")
	d.line("SoftHSM token. Do not edit the page: change `tests/interop` and run it.")
	d.line("")
	r.writePeers(&d)
	r.writeGroups(&d)
	r.writeOwn(&d)
	r.writeVariants(&d)
	r.writeFaults(&d)
	path := filepath.Join(program.Root(), "docs", "INTEROP.md")
	if err := os.WriteFile(path, []byte(d.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// document is text in Markdown.
type document struct{ strings.Builder }

func (d *document) line(format string, args ...any) {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	d.WriteString(format + "\n")
}

// row writes a row of a table; the first one gets its rule below.
func (d *document) row(first bool, cells ...string) {
	d.line("%s", "| "+strings.Join(cells, " | ")+" |")
	if first {
		d.line("%s", "|"+strings.Repeat("---|", len(cells)))
	}
}

func (r *results) names() []string {
	var names []string
	for _, p := range r.peers {
		names = append(names, p.hello.Name)
	}
	return names
}

func (r *results) writePeers(d *document) {
	d.line("## Peers")
	d.line("")
	d.row(true, "library", "version", "cipher suites", "our member signs")
	for _, p := range r.peers {
		var numbers []string
		for _, s := range ciphersuite.All() {
			if understands(p, uint16(s.ID)) {
				numbers = append(numbers, fmt.Sprint(uint16(s.ID)))
			}
		}
		signs := "in the token, asked for each signature"
		if !p.external() {
			signs = "with a key that was imported into the token: the library cannot ask for signatures"
		}
		d.row(false, p.hello.Name, strings.TrimPrefix(p.hello.Version, "v"), strings.Join(numbers, ", "), signs)
	}
	d.line("")
	d.line("Suites above 7 are experimental. What a number means differs from library to library:")
	d.line("")
	for _, e := range experiments {
		d.line("- %d is %s for %s", uint16(e.ID), e.Name, strings.Join(e.peers, ", "))
	}
	d.line("")
	d.line("Notes on each:")
	d.line("")
	for _, p := range r.peers {
		for _, note := range p.hello.Notes {
			d.line("- %s: %s", p.hello.Name, note)
		}
	}
	d.line("")
}

func (r *results) writeGroups(d *document) {
	d.line("## Groups")
	d.line("")
	d.line("The library of the row validates a key package of hsm-kp, adds it to a group of its")
	d.line("own and makes a Welcome. A member that is built with the library of the column and")
	d.line("the private keys that `hsm-kp unwrap` printed joins with the Welcome, and follows the")
	d.line("founder to the next epoch by a commit that is encrypted to its leaf. *yes*: both have the")
	d.line("same epoch authenticator, and each read a message of the other. In the last column `hsm-kp")
	d.line("welcome open` opens the Welcome, with the same epoch authenticator: with its private keys")
	d.line("sealed, and in suites 2, 5 and 7 also with private keys that never leave the token. A")
	d.line("letter is a fault of a library: see the list at the end.")
	d.line("")
	for _, suite := range ciphersuite.All() {
		serving := r.serving(uint16(suite.ID))
		if len(serving) == 0 {
			continue
		}
		d.line("Suite %d, %s:", uint16(suite.ID), suite.Name)
		d.line("")
		header := []string{"adds \\ joins"}
		for _, p := range serving {
			header = append(header, p.hello.Name)
		}
		header = append(header, ourselves)
		d.row(true, header...)
		for _, founder := range serving {
			cells := []string{founder.hello.Name}
			for _, joiner := range serving {
				cells = append(cells, r.cellText(cell{uint16(suite.ID), founder.hello.Name, joiner.hello.Name}))
			}
			cells = append(cells, r.cellText(cell{uint16(suite.ID), founder.hello.Name, ourselves}))
			d.row(false, cells...)
		}
		d.line("")
	}
}

func (r *results) cellText(c cell) string {
	if r.passed[c] {
		return "yes"
	}
	var letters []string
	for _, f := range r.failed[c] {
		letters = append(letters, letter(f))
	}
	return strings.Join(letters, ", ")
}

// letter names a fault.
func letter(f *fault) string { return string(rune('A' + slices.Index(faults, f))) }

func (r *results) writeOwn(d *document) {
	d.line("## Their key packages")
	d.line("")
	d.line("What `hsm-kp verify` finds in key packages that the libraries make by default, each")
	d.line("decoded and encoded again to the same bytes. Findings in parentheses are warnings.")
	d.line("")
	d.row(true, "library", "suites", "findings")
	for _, p := range r.peers {
		var order []string
		bySuite := make(map[string][]string)
		for _, s := range ciphersuite.All() {
			findings, ok := r.own[cell{uint16(s.ID), p.hello.Name, ""}]
			if !ok {
				continue
			}
			text := verdict(findings, nil)
			if len(bySuite[text]) == 0 {
				order = append(order, text)
			}
			bySuite[text] = append(bySuite[text], fmt.Sprint(uint16(s.ID)))
		}
		for _, text := range order {
			d.row(false, p.hello.Name, strings.Join(bySuite[text], ", "), text)
		}
	}
	d.line("")
}

func (r *results) writeVariants(d *document) {
	d.line("## What is refused")
	d.line("")
	d.line("Key packages of suite %d with one thing changed, and signed. Each library is asked to add them.", uint16(variantSuite))
	d.line("*adds*: it made a Welcome. The profiles of `hsm-kp verify --for PEERS` say the same: the test")
	d.line("compares each of them with this table. The second column is what `hsm-kp verify` finds;")
	d.line("warnings are in parentheses.")
	d.line("")
	d.row(true, append([]string{"key package", "hsm-kp verify"}, r.names()...)...)
	for _, name := range r.variantNames {
		cells := []string{strings.ReplaceAll(name, "|", "\\|"), r.findings[name]}
		for _, p := range r.names() {
			text := "adds"
			if r.refused[[2]string{name, p}] != nil {
				text = "**refuses**"
			}
			cells = append(cells, text)
		}
		d.row(false, cells...)
	}
	d.line("")
	for _, m := range remarks {
		d.line("- %s, %s: %s", strings.Join(m.peers, ", "), strings.Join(m.variants, " and "), m.text)
	}
	d.line("")
}

func (r *results) writeFaults(d *document) {
	d.line("## Faults found")
	d.line("")
	for _, f := range faults {
		var numbers []string
		for _, s := range f.suites {
			numbers = append(numbers, fmt.Sprint(s))
		}
		d.line("- **%s**, %s, suites %s: it %s", letter(f), f.peer, strings.Join(numbers, ", "), f.note)
	}
}
