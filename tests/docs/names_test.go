package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// Each file, folder or package of the repository that a page names exists.
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

// The refusals that the page quotes are those of the service.
func TestPageHasTheRefusals(t *testing.T) {
	_, refusals, _ := strings.Cut(read(t, "docs/API.md"), "| refused | in the trail")
	refusals, _, _ = strings.Cut(refusals, "\n\n")
	sources := sourcesOf(t, "internal/server")
	for _, m := range regexp.MustCompile("`([a-z]+ [^`]*)`").FindAllStringSubmatch(refusals, -1) {
		said := regexp.MustCompile(`[A-Z]\w+$`).ReplaceAllString(m[1], "")
		if !strings.Contains(sources, `"`+said) {
			t.Errorf("the service does not say %q", m[1])
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
