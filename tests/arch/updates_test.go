package arch

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// updates is the file of update rules.
const updates = ".github/dependabot.yml"

// ecosystems maps manifests to the names that rules use for them.
var ecosystems = map[string]string{"go.mod": "gomod", "package.json": "npm", "Cargo.toml": "cargo", "pom.xml": "maven"}

// manifests returns the folders of the tree that have a manifest, by ecosystem. It skips test
// data and the output of package managers and builds.
func manifests(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	err := fs.WalkDir(os.DirFS(program.Root()), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "testdata", "node_modules", "target", "dist"}, d.Name()) {
			return fs.SkipDir
		}
		if ecosystem, ok := ecosystems[d.Name()]; ok {
			all[ecosystem] = append(all[ecosystem], path.Join("/", path.Dir(name)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rules returns the folders that have an update rule, by ecosystem.
func rules(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program.Root(), filepath.FromSlash(updates)))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directories []string
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatalf("parse %s: %v", updates, err)
	}
	all := make(map[string][]string)
	for _, rule := range file.Updates {
		all[rule.Ecosystem] = append(all[rule.Ecosystem], rule.Directories...)
	}
	return all
}

func TestEveryManifestHasAnUpdateRule(t *testing.T) {
	found, ruled := manifests(t), rules(t)
	for _, ecosystem := range ecosystems {
		if len(found[ecosystem]) == 0 {
			t.Errorf("the tree has no manifest of %s", ecosystem)
		}
		for _, folder := range found[ecosystem] {
			if !slices.Contains(ruled[ecosystem], folder) {
				t.Errorf("%s has no rule of %s for %s", updates, ecosystem, folder)
			}
		}
		for _, folder := range ruled[ecosystem] {
			if !slices.Contains(found[ecosystem], folder) {
				t.Errorf("%s has a rule of %s for %s, which has no manifest", updates, ecosystem, folder)
			}
		}
	}
}
