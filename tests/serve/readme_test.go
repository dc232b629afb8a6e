package serve

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

var update = flag.Bool("update", false, "write what the README's commands print into the README")

// step is a command of the README, and what it says that the command prints.
type step struct{ command, output string }

// block is a part of the README's section: text, a config, or commands.
type block struct {
	text  string
	yaml  string
	steps []step
}

// blocksOf cuts a section of Markdown at its fences.
func blocksOf(section string) (out []block) {
	parts := strings.Split(section, "```")
	for i, part := range parts {
		switch kind, body, _ := strings.Cut(part, "\n"); {
		case i%2 == 0:
			out = append(out, block{text: part})
		case kind == "yaml":
			out = append(out, block{yaml: body})
		default:
			out = append(out, block{steps: stepsOf(body)})
		}
	}
	return out
}

// stepsOf reads commands: each begins with "$ ", and goes on after a line that ends with | or \.
func stepsOf(body string) (out []step) {
	open := false
	for line := range strings.Lines(body) {
		command, begins := strings.CutPrefix(line, "$ ")
		switch {
		case begins:
			out = append(out, step{command: command})
		case open:
			out[len(out)-1].command += line
		default:
			out[len(out)-1].output += line
		}
		line = strings.TrimRight(line, "\n")
		open = (begins || open) && (strings.HasSuffix(line, "|") || strings.HasSuffix(line, `\`))
	}
	return out
}

// The section on the service is what an operator does from nothing; it is done here, in a
// folder of its own, and prints what the README says but for what is random.
func TestTheReadmesServiceIsSetUpFromNothing(t *testing.T) {
	program.RequireSoftHSM(t)
	for _, tool := range []string{"curl", "openssl", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed; scripts/install-deps test does that", tool)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
	path := filepath.Join(program.Root(), "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, section, ok := strings.Cut(string(readme), "## A service\n")
	section, after, ok2 := strings.Cut(section, "\n## ")
	if !ok || !ok2 {
		t.Fatal("the README has no section on the service")
	}
	home, addr := t.TempDir(), program.FreeAddress(t)
	real := strings.NewReplacer("127.0.0.1:8443", addr, "uids: [1000]", fmt.Sprintf("uids: [%d]", os.Getuid()))
	blocks := blocksOf(section)
	printed := runScript(t, home, real.Replace(script(blocks)))
	shown := strings.NewReplacer(addr, "127.0.0.1:8443", home, "/home/you", "uid:"+strconv.Itoa(os.Getuid()), "uid:1000")
	var b strings.Builder
	n := 0
	for i := range blocks {
		switch {
		case blocks[i].yaml != "":
			fmt.Fprintf(&b, "```yaml\n%s```", blocks[i].yaml)
		case blocks[i].steps != nil:
			b.WriteString("```console\n")
			for _, s := range blocks[i].steps {
				got := clip(shown.Replace(printed[n]))
				n++
				if !*update && random(got) != random(s.output) {
					t.Errorf("$ %sprints\n%s\nthe README has\n%s", s.command, got, s.output)
				}
				fmt.Fprintf(&b, "$ %s%s", s.command, got)
			}
			b.WriteString("```")
		default:
			b.WriteString(blocks[i].text)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+"## A service\n"+b.String()+"\n## "+after), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// marker stands between what two commands print.
const marker = "@@@@"

// script is all commands, in a shell that was used for the README's first session.
func script(blocks []block) string {
	var b strings.Builder
	b.WriteString("shopt -s expand_aliases\nexec 2>&1\nhsm-kp init --softhsm ~/kp >/dev/null\nexport HSM_KP_CONFIG=~/kp/hsm-kp.yaml\nhsm-kp identity create alice >/dev/null\n")
	for i := range blocks {
		if blocks[i].yaml != "" {
			fmt.Fprintf(&b, "cat >>~/kp/hsm-kp.yaml <<'END'\n%sEND\n", blocks[i].yaml)
		}
		for _, s := range blocks[i].steps {
			fmt.Fprintf(&b, "echo %s\n%s", marker, s.command)
			if strings.HasSuffix(s.command, "&\n") {
				b.WriteString("for i in $(seq 1200); do curl -sf --unix-socket ~/kp/hsm-kp.sock http://hsm-kp/readyz >/dev/null && break; sleep 0.1; done\n")
			}
		}
	}
	return b.String() + "kill %1\nwait\n"
}

// runScript runs a script by bash, and returns what each command printed.
func runScript(t *testing.T, home, text string) []string {
	t.Helper()
	bin := program.Build(t)
	grpcurl := exec.Command("go", "build", "-o", filepath.Join(bin, "grpcurl"), "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	grpcurl.Dir = filepath.Join(program.Root(), "tools")
	if out, err := grpcurl.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
	file := filepath.Join(bin, "script")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", file)
	cmd.Dir = program.Root()
	cmd.Env = append(os.Environ(), "HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("bash: %v\n%s", err, out)
	}
	return strings.Split(string(bytes.ReplaceAll(out, []byte("\r"), nil)), marker+"\n")[1:]
}

// clip ends lines after what a page shows.
func clip(s string) string {
	const width = 260
	var b strings.Builder
	for line := range strings.Lines(s) {
		if len(line) > width {
			line = line[:width] + "…\n"
		} else if !strings.HasSuffix(line, "\n") {
			line += "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

var (
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	bytesText = regexp.MustCompile(`[0-9A-Za-z+/]{16,}=*(…|")?`)
	spaces    = regexp.MustCompile(`([,:{}\[\]"])\s+`) // protojson writes them or not, build by build
)

// random takes out what another run would print otherwise.
func random(s string) string {
	s = timestamp.ReplaceAllString(s, "TIME")
	s = spaces.ReplaceAllString(s, "$1")
	return bytesText.ReplaceAllString(s, "BYTES$1")
}
