package docs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// start is what has been done before a page other than the README begins.
const start = "hsm-kp init --softhsm ~/kp\nexport HSM_KP_CONFIG=~/kp/hsm-kp.yaml\nhsm-kp identity create alice\n"

// loop runs the commands that it reads from descriptor 3, each ended by a zero byte, and reports the
// end of each.
const loop = `shopt -s expand_aliases
exec 2>&1
while IFS= read -r -u 3 -d '' command; do
  eval "$command"
  echo "` + marker + `"
done
kill $(jobs -p) 2>/dev/null
wait`

const marker = "@@@@"

// session is a shell that executes the commands of a page.
type session struct {
	t    *testing.T
	home string
	addr string // replaces 127.0.0.1:8443 of the page
	in   io.WriteCloser
	out  *bufio.Reader
	// copied maps each key, ref or digest of the page to the one that was printed instead.
	copied [][2]string
}

// newSession begins a shell with hsm-kp in its PATH and the clone in ~/hsm-kp.
func newSession(t *testing.T, bin string) *session {
	t.Helper()
	s := &session{t: t, home: filepath.Join(t.TempDir(), "you"), addr: program.FreeAddress(t)}
	if err := errors.Join(os.Mkdir(s.home, 0o700), os.Symlink(program.Root(), filepath.Join(s.home, "hsm-kp"))); err != nil {
		t.Fatal(err)
	}
	commands, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer commands.Close()
	cmd := exec.Command("bash", "-c", loop)
	cmd.Dir = s.home
	cmd.Env = append(os.Environ(), "HOME="+s.home, "PATH="+bin+":"+os.Getenv("PATH"), "HSM_KP_CONFIG=")
	cmd.ExtraFiles = []*os.File{commands}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReader(out)
	stuck := time.AfterFunc(10*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, s.out)
		_ = cmd.Wait()
		stuck.Stop()
	})
	return s
}

// run lets the shell execute a command, and returns its output.
func (s *session) run(command string) string {
	s.t.Helper()
	if strings.HasSuffix(strings.TrimSpace(command), "&") { // a service that the next command needs
		command += "\nfor i in $(seq 200); do curl -sf --unix-socket ~/kp/hsm-kp.sock http://hsm-kp/readyz >/dev/null && break; sleep 0.1; done\n"
	}
	if _, err := io.WriteString(s.in, command+"\x00"); err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("$ %s: %v after\n%s%s", command, err, b.String(), line)
		}
		if before, done := strings.CutSuffix(line, marker+"\n"); done {
			return strings.ReplaceAll(b.String()+before, "\r", "")
		}
		b.WriteString(line)
	}
}

// real returns a command of the page with each key, ref or digest of the page, or its first digits,
// replaced by the one that was printed here.
func (s *session) real(command string) string {
	command = strings.NewReplacer("127.0.0.1:8443", s.addr, "/home/you", s.home).Replace(command)
	return digits.ReplaceAllStringFunc(command, func(word string) string {
		for _, pair := range s.copied {
			if strings.HasPrefix(pair[0], word) && len(pair[1]) >= len(word) {
				return pair[1][:len(word)]
			}
		}
		return word
	})
}

// shown returns output as a page shows it.
func (s *session) shown(printed string) string {
	uid, name := strconv.Itoa(os.Getuid()), "you"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	printed = strings.NewReplacer(s.addr, "127.0.0.1:8443", s.home, "/home/you").Replace(printed)
	printed = replacePadded(printed, "user:"+name, "user:you")
	return clip(replacePadded(printed, "uid:"+uid, "uid:1000"))
}

// replacePadded replaces a word, and keeps the text after it in its column.
func replacePadded(s, before, after string) string {
	if more := len(before) - len(after); more > 0 {
		s = strings.ReplaceAll(s, before+"  ", after+"  "+strings.Repeat(" ", more))
	} else if more < 0 {
		s = strings.ReplaceAll(s, before+strings.Repeat(" ", 2-more), after+"  ")
	}
	return strings.ReplaceAll(s, before, after)
}

// remember notes the output here that replaces a text of the page.
func (s *session) remember(page, here string) {
	a, b := digits.FindAllString(page, -1), digits.FindAllString(here, -1)
	for i := range min(len(a), len(b)) {
		s.copied = append(s.copied, [2]string{a[i], b[i]})
	}
}

// paste adds a config to the one of the page, as a reader would, and checks it.
func (s *session) paste(text string) {
	s.t.Helper()
	text = strings.NewReplacer("127.0.0.1:8443", s.addr, "uids: [1000]", fmt.Sprintf("uids: [%d]", os.Getuid()), "/home/you", s.home).Replace(text)
	into := "~/kp/hsm-kp.yaml"
	if isWhole(text) {
		into = "~/whole.yaml"
		s.run("rm -f " + into)
	}
	s.run("cat >>" + into + " <<'END'\n" + text + "END\n")
	if got := s.run("hsm-kp config check " + into); !strings.HasSuffix(got, ": ok\n") {
		s.t.Errorf("the config\n%s\nis not taken: %s", text, got)
	}
}

// isWhole reports whether a config is complete: it names a token.
func isWhole(config string) bool { return strings.HasPrefix(config, "token:") }

// Every page works: the commands that it shows print what it shows.
func TestPages(t *testing.T) {
	program.RequireSoftHSM(t)
	requireTools(t, "bash", "curl", "jq", "openssl")
	bin := program.Build(t)
	buildGrpcurl(t, bin)
	for _, page := range pages(t) {
		blocks := blocksOf(read(t, page))
		if !runs(blocks) {
			continue
		}
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			s := newSession(t, bin)
			if page != "README.md" {
				s.run(start)
			}
			changed := s.follow(blocks)
			if *update && !t.Failed() {
				if err := os.WriteFile(filepath.Join(program.Root(), page), []byte(changed), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// runs reports whether a page has a session or a config.
func runs(blocks []block) bool {
	for _, b := range blocks {
		if b.info == "console" || b.info == "yaml" {
			return true
		}
	}
	return false
}

// follow executes a page, block by block, and returns the page with the present output.
func (s *session) follow(blocks []block) string {
	var page strings.Builder
	for _, b := range blocks {
		switch b.info {
		case "yaml":
			s.paste(b.body)
		case "console":
			b.body = s.perform(b.body)
		}
		page.WriteString(b.String())
	}
	return page.String()
}

// perform runs the commands of a console block, compares their output, and returns the block with
// the present output.
func (s *session) perform(body string) string {
	var b strings.Builder
	for _, step := range stepsOf(body) {
		command := s.real(step.command)
		got := s.shown(s.run(command))
		if !*update && random(got) != random(step.output) {
			s.t.Errorf("$ %sprints\n%s\nthe page has\n%s\nif that is right: go test ./docs -update", command, got, step.output)
		}
		s.remember(step.output, got)
		fmt.Fprintf(&b, "$ %s%s", strings.NewReplacer(s.addr, "127.0.0.1:8443", s.home, "/home/you").Replace(command), got)
	}
	return b.String()
}

func requireTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed; scripts/install-deps test does that", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

func buildGrpcurl(t *testing.T, bin string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", filepath.Join(bin, "grpcurl"), "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	cmd.Dir = filepath.Join(program.Root(), "tools")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
}
