package arch

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// required returns the modules that the product's go.mod requires directly.
func required(t *testing.T) map[string]bool {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = program.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, r := range file.Require {
		if !r.Indirect {
			all[r.Path] = true
		}
	}
	return all
}

func TestTheTableHasEveryDependency(t *testing.T) {
	rows, modules := table(t, "| module | for | instead of |"), required(t)
	for module := range modules {
		if _, there := rows[module]; !there {
			t.Errorf("%s does not say what %s is for, which go.mod requires", page, module)
		}
	}
	for module := range rows {
		if !modules[module] {
			t.Errorf("%s has %s, which go.mod does not require", page, module)
		}
	}
}
