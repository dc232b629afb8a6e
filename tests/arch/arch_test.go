// Package arch holds the imports of the product against the table in
// docs/ARCHITECTURE.md.
package arch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

const module = "github.com/hsm-kp/hsm-kp/"

// arrows are the imports that each room may have, of the product's own.
var arrows = map[string][]string{
	"wire":                               {},
	"ciphersuite":                        {"wire"},
	"hpke":                               {"wire", "ciphersuite"},
	"certificate":                        {"ciphersuite"},
	"keypackage":                         {"wire", "ciphersuite", "hpke", "certificate"},
	"token":                              {"token/onecall"},
	"token/onecall":                      {},
	"token/tokentest":                    {"token"},
	"token/vendortest":                   {"token"},
	"certificate/certificatetest":        {},
	"softhsm":                            {"token"},
	"softhsm/softhsmtest":                {"softhsm", "token"},
	"signer":                             {"ciphersuite", "token"},
	"vault":                              {"wire", "ciphersuite", "hpke", "token"},
	"identity":                           {"ciphersuite", "keypackage", "certificate"},
	"audit":                              {"wire"},
	"store":                              {"audit"},
	"store/record":                       {"audit", "store"},
	"store/group":                        {},
	"store/sqlite":                       {"audit", "store", "store/group", "store/record"},
	"store/postgres":                     {"audit", "store", "store/group", "store/record"},
	"store/postgres/postgrestest":        {},
	"store/storetest":                    {"audit", "store"},
	"inventory":                          {"wire", "ciphersuite", "hpke", "keypackage", "identity", "audit", "store", "vault", "welcome"},
	"config":                             {},
	"manifest":                           {},
	"welcome":                            {"wire", "ciphersuite", "hpke", "keypackage"},
	"welcome/welcometest":                {"wire", "ciphersuite", "hpke", "keypackage", "keypackage/keypackagetest"},
	"keypackage/keypackagetest":          {"ciphersuite", "hpke", "keypackage"},
	"directory":                          {"wire", "keypackage"},
	"directory/directorytest":            {"wire", "keypackage"},
	"profile":                            {"ciphersuite", "hpke", "keypackage"},
	"framing":                            {"wire", "keypackage"},
	"integrations/client":                {"wire", "keypackage", "server/api/hsmkp/v1", "server/api/hsmkp/v1/hsmkpv1connect"},
	"server/api/hsmkp/v1":                {},
	"server/api/hsmkp/v1/hsmkpv1connect": {"server/api/hsmkp/v1"},
	"observe":                            {"ciphersuite", "keypackage", "store", "token", "inventory", "server"},
	"server":                             {"wire", "ciphersuite", "hpke", "keypackage", "framing", "welcome", "identity", "audit", "store", "vault", "inventory", "server/api/hsmkp/v1", "server/api/hsmkp/v1/hsmkpv1connect"},
}

// owners are the modules that only one room may import.
var owners = map[string]string{
	"github.com/miekg/pkcs11":                                 "token",
	"github.com/ThalesGroup/crypto11":                         "token",
	"github.com/mattn/go-sqlite3":                             "store/sqlite",
	"github.com/jackc/pgx/v5":                                 "store/postgres",
	"go.yaml.in/yaml/v4":                                      "config",
	"github.com/urfave/cli/v2":                                "cmd/hsm-kp",
	"golang.org/x/mod/sumdb/note":                             "audit",
	"github.com/prometheus/client_golang/prometheus":          "observe",
	"github.com/prometheus/client_golang/prometheus/promhttp": "observe",
	"golang.org/x/mod/sumdb/tlog":                             "audit",
}

// imports returns the direct imports of each package of the product.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}} {{range .Imports}}{{.}} {{end}}", "./...")
	cmd.Dir = program.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		all[strings.TrimPrefix(fields[0], module)] = fields[1:]
	}
	return all
}

func TestImportsFollowTheTable(t *testing.T) {
	for room, list := range imports(t) {
		allowed, known := arrows[room]
		switch {
		case strings.HasPrefix(room, "cmd/"):
			continue // wires everything
		case !known:
			t.Errorf("%s is not in the table", room)
			continue
		}
		for _, path := range list {
			if other, ours := strings.CutPrefix(path, module); ours && !slices.Contains(allowed, other) {
				t.Errorf("%s imports %s, which the table does not allow", room, other)
			}
		}
	}
}

func TestOneRoomOwnsEachOutsideSystem(t *testing.T) {
	seen := make(map[string]bool)
	for room, list := range imports(t) {
		for _, path := range list {
			owner, owned := owners[path]
			if !owned {
				continue
			}
			seen[path] = true
			if room != owner && !strings.HasPrefix(room, owner+"/") {
				t.Errorf("%s imports %s, which is %s's alone", room, path, owner)
			}
		}
	}
	for path := range owners {
		if !seen[path] {
			t.Errorf("nothing imports %s", path)
		}
	}
}

// Programs that call the service need no C compiler, no PKCS#11 module and no database.
func TestTheClientIsGoAlone(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{len .CgoFiles}}{{end}}", "./integrations/client")
	cmd.Dir = program.Root()
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1") // else files of cgo are not told
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := 0
	for line := range strings.Lines(string(out)) {
		path, files, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		deps++
		if _, owned := owners[path]; owned || files != "0" {
			t.Errorf("integrations/client depends on %s, with %s files of cgo", path, files)
		}
	}
	if deps < 5 {
		t.Errorf("integrations/client depends on %d packages, want some", deps)
	}
}
