package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// A file, folder or package of the repository that a page names is there.
func TestNamedFilesExist(t *testing.T) {
	folders, err := os.ReadDir(program.Root())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range folders {
		if f.IsDir() && !strings.HasPrefix(f.Name(), ".") && f.Name() != "bin" {
			names = append(names, f.Name())
		}
	}
	named := regexp.MustCompile("[` ](?:\\./)?((?:" + strings.Join(names, "|") + `)(?:/[\w.*-]+)+)`)
	for _, page := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(read(t, page), -1) {
			path := strings.TrimRight(m[1], ".")
			if found, err := filepath.Glob(filepath.Join(program.Root(), path)); err != nil || len(found) == 0 {
				t.Errorf("%s: names %s, which is not there", page, path)
			}
		}
	}
}

// What is exported to Prometheus is in the page, and the other way round.
func TestPageHasTheMetrics(t *testing.T) {
	page := read(t, "docs/OBSERVABILITY.md")
	exported := make(map[string]bool)
	for _, m := range regexp.MustCompile(`"hsm_kp_(\w+)"|\bdesc\("(\w+)"`).FindAllStringSubmatch(sourcesOf(t, "internal/observe"), -1) {
		exported["hsm_kp_"+m[1]+m[2]] = true
	}
	for name := range exported {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page does not have %s", name)
		}
	}
	for _, m := range regexp.MustCompile("`(hsm_kp_\\w+)`").FindAllStringSubmatch(page, -1) {
		if !exported[m[1]] {
			t.Errorf("the page has %s, which is not exported", m[1])
		}
	}
}

// What the page says of refusals is what the service says, and its reasons are those of the API.
func TestPageHasTheRefusals(t *testing.T) {
	page, proto := read(t, "docs/API.md"), read(t, "api/hsmkp/v1/hsmkp.proto")
	_, refusals, _ := strings.Cut(page, "| refused | in the trail")
	refusals, _, _ = strings.Cut(refusals, "\n\n")
	sources := sourcesOf(t, "internal/server")
	for _, m := range regexp.MustCompile("`([a-z]+ [^`]*)`").FindAllStringSubmatch(refusals, -1) {
		said := regexp.MustCompile(`[A-Z]\w+$`).ReplaceAllString(m[1], "")
		if !strings.Contains(sources, `"`+said) {
			t.Errorf("the service does not say %q", m[1])
		}
	}
	_, errors, _ := strings.Cut(page, "| reason | code |")
	errors, _, _ = strings.Cut(errors, "\n\n")
	inTable := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)`").FindAllStringSubmatch(errors, -1) {
		inTable[m[1]] = true
		if !strings.Contains(proto, "  REASON_"+m[1]+" =") {
			t.Errorf("the API has no reason %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  REASON_([A-Z_]+) = [1-9]`).FindAllStringSubmatch(proto, -1) {
		if !inTable[m[1]] && !strings.Contains(page, "REASON_"+m[1]+"`") {
			t.Errorf("the page does not have the reason %s", m[1])
		}
	}
}

// sourcesOf returns the program text of a package, without its tests.
func sourcesOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(program.Root(), dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}
