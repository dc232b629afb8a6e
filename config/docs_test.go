package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// A field that a page names, such as token.recovery, is one of the config.
func TestPagesNameKnownFields(t *testing.T) {
	var root yaml.Node
	if err := yaml.Load([]byte(everything), &root); err != nil {
		t.Fatal(err)
	}
	known := pathsOf("", root.Content[0])
	span := regexp.MustCompile("`([a-z0-9_]+)((?:\\.[A-Za-z0-9_]+)+)[`:]")
	named := 0
	for _, page := range markdownPages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range span.FindAllStringSubmatch(string(text), -1) {
			name := m[1] + m[2]
			if !known[m[1]] || regexp.MustCompile(`\.[A-Z][a-z]`).MatchString(m[2]) || notOurs[name] {
				continue // a file's name, a Go identifier
			}
			named++
			path := regexp.MustCompile(`\.NAME\b`).ReplaceAllString(name, ".*")
			if !known[path] {
				t.Errorf("%s: the config has no %s", page, path)
			}
		}
	}
	if named < 50 {
		t.Errorf("the pages name %d fields, want 50 at least", named)
	}
}

// notOurs are a column of the store and a file of SoftHSM, which look like fields.
var notOurs = map[string]bool{"audit.mark": true, "token.object": true}

// pathsOf returns the paths of all keys below one. What is named by the operator is *.
func pathsOf(path string, n *yaml.Node) map[string]bool {
	known := make(map[string]bool)
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		at := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
		if path == "identities" || path == "server.callers" || path == "token.environment" {
			at = path + ".*"
		}
		known[at] = true
		for below := range pathsOf(at, n.Content[i+1]) {
			known[below] = true
		}
	}
	return known
}

func markdownPages(t *testing.T) []string {
	t.Helper()
	all := []string{"../README.md"}
	err := filepath.WalkDir("../docs", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
