package status

import (
	"bytes"
	"flag"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

var update = flag.Bool("update", false, "write the screenshot to docs/status.png")

// browser is a headless Chromium with a proxy that sees all its requests.
type browser struct {
	t     *testing.T
	path  string
	home  string
	proxy *httptest.Server

	mu   sync.Mutex
	seen []string
}

// own matches hosts that Chromium contacts by itself, whatever the page.
var own = regexp.MustCompile(`(^|\.)(google|googleapis|gvt1|gstatic)\.com(:\d+)?$`)

func openBrowser(t *testing.T) *browser {
	t.Helper()
	b := &browser{t: t, path: tool(t, "chromium", "chromium-browser", "google-chrome"), home: t.TempDir()}
	b.proxy = httptest.NewServer(http.HandlerFunc(b.pass))
	t.Cleanup(b.proxy.Close)
	return b
}

// pass records a request, and forwards requests to this machine.
func (b *browser) pass(w http.ResponseWriter, r *http.Request) {
	if own.MatchString(r.Host) {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	b.mu.Lock()
	b.seen = append(b.seen, r.Method+" "+r.URL.String())
	b.mu.Unlock()
	if r.URL.Hostname() != "127.0.0.1" {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	r.RequestURI = ""
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

// run opens a page and returns what Chromium prints.
func (b *browser) run(page string, args ...string) []byte {
	b.t.Helper()
	args = append([]string{
		"--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--no-default-browser-check",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
		"--user-data-dir=" + filepath.Join(b.home, "profile"), "--proxy-server=" + b.proxy.URL, "--proxy-bypass-list=<-loopback>",
	}, args...)
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	cmd := exec.CommandContext(b.t.Context(), b.path, append(args, page)...)
	cmd.Env = append(os.Environ(), "HOME="+b.home, "XDG_CONFIG_HOME="+b.home, "XDG_CACHE_HOME="+b.home, "TZ=UTC")
	cmd.WaitDelay = program.Patience
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("chromium: %v\n%s", err, stderr.String())
	}
	return out
}

// asked returns the requests since its last call.
func (b *browser) asked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.seen
	b.seen = nil
	return seen
}

// shot takes a picture of a page in one of the color schemes.
func (b *browser) shot(page, path string, dark bool) image.Image {
	b.t.Helper()
	args := []string{"--screenshot=" + path, fmt.Sprintf("--window-size=1240,%d", high)}
	if dark {
		args = append(args, "--force-dark-mode")
	}
	b.run(page, args...)
	f, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		b.t.Fatal(err)
	}
	return picture
}

var (
	rows  = regexp.MustCompile(`(?s)<tr>(.*?)</tr>`)
	cells = regexp.MustCompile(`(?s)<t[hd]\b[^>]*>(.*?)</t[hd]>`)
	tags  = regexp.MustCompile(`(?s)<title>.*?</title>|<[^>]*>`)
)

// table returns the rows of a table as people see them, by their first cell.
func table(t *testing.T, dom, id string) (order []string, by map[string][]string) {
	t.Helper()
	found := regexp.MustCompile(`(?s)<table id="` + id + `">(.*?)</table>`).FindStringSubmatch(dom)
	if found == nil {
		t.Fatalf("the page has no table %s:\n%s", id, dom)
	}
	by = make(map[string][]string)
	for _, row := range rows.FindAllStringSubmatch(found[1], -1) {
		var texts []string
		for _, cell := range cells.FindAllStringSubmatch(row[1], -1) {
			texts = append(texts, strings.TrimSpace(html.UnescapeString(tags.ReplaceAllString(cell[1], ""))))
		}
		order, by[texts[0]] = append(order, texts[0]), texts
	}
	return order[1:], by // without the header
}

func TestThePageInABrowser(t *testing.T) {
	b := openBrowser(t)
	s := populate(t)
	s.serve()
	t.Run("what it says", func(t *testing.T) { s.readIn(t, b) })
	t.Run("how it looks", func(t *testing.T) { s.lookIn(t, b) })
}

// readIn reads the page as a person does.
func (s *service) readIn(t *testing.T, b *browser) {
	s.call("Claim", `{"identity":"alice@example.com","count":2}`)
	s.call("Claim", `{"identity":"nobody"}`)
	s.call("OpenWelcome", `{"identity":"alice@example.com","welcome":"AAE="}`)
	page := "http://" + s.addr + "/status"
	dom := string(b.run(page, "--dump-dom"))

	// Only the page itself was requested.
	if seen := slices.Compact(b.asked()); !slices.Equal(seen, []string{"GET " + page}) { // again after half a minute
		t.Errorf("the browser asked for %q, want the page alone", seen)
	}
	// Levels are those of the store, lowest first.
	order, pools := table(t, dom, "pools")
	if len(order) != len(fleet)+1 || order[0] != "kiosk-0042" {
		t.Errorf("the rows are %q, want all identities, and the empty one first", order)
	}
	for _, f := range fleet {
		counts := s.count(f.name)
		want := counts["available"] + counts["published"] + counts["pending"]
		for _, part := range strings.Fields(f.packages) { // key packages that end within 14 days do not count
			if n, days, _ := strings.Cut(part, ":"); days == "6" || days == "10" {
				var ending float64
				fmt.Sscan(n, &ending)
				want -= ending
			}
		}
		if got := pools[f.name][3]; got != fmt.Sprint(want) {
			t.Errorf("%s: the page says %s, the store %v", f.name, got, want)
		}
	}
	for name, want := range map[string][]string{
		"kiosk-0042": {"2 · P256", "0", "20", "–", "–", "empty"}, "relay-eu-2": {"1 · Ed25519", "6", "20", "in 69 d", "–", "low"},
		"gateway-cdg-1": {"2 · P256", "22", "20", "in 17 d", "in 17 d", "filled"},
	} {
		if got := slices.Delete(slices.Clone(pools[name][1:]), 1, 2); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// The ends of lifetimes are shown as a chart and as a table with the same numbers.
	if !strings.Contains(dom, ": 12 available</title>") || !strings.Contains(dom, "<strong>12</strong> within 7 days") {
		t.Error("the twelve that end in six days are not in the picture")
	}
	weeks, _ := table(t, dom, "weeks")
	if len(weeks) != 13 {
		t.Errorf("%d weeks, want 12 and later", len(weeks))
	}
	// The token, the requests, the wrapping key.
	if _, calls := table(t, dom, "calls"); calls["C_Login"] == nil || calls["C_Login"][1] != "1" || calls["C_Login"][2] != "0" {
		t.Errorf("calls: %q, want one login that did not fail", calls)
	}
	if _, operations := table(t, dom, "operations"); operations["claim"][1] != "2" || operations["claim"][2] != "1" {
		t.Errorf("requests: %q, want two claims, one of them not done", operations)
	}
	if !strings.Contains(tags.ReplaceAllString(dom, ""), "1 × open_welcome: not granted") {
		t.Error("the page does not say what was refused")
	}
	if _, keys := table(t, dom, "wrapping"); keys["seal"] == nil || keys["seal"][1] != "current" {
		t.Errorf("wrapping keys: %q", keys)
	}
	for _, want := range []string{`id="ready" class="badge ok">Ready<`, `id="login" class="badge ok">logged in<`} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if strings.Contains(dom, s.Dir) {
		t.Error("the page has a path")
	}
}

const high = 1890 // of the picture, which is high enough for the whole page

// lookIn examines the rendered page: its style is accepted, by its hash, in both color schemes.
func (s *service) lookIn(t *testing.T, b *browser) {
	for range 19 {
		s.call("Claim", `{"identity":"bob@example.com"}`)
	}
	for range 6 {
		s.call("Generate", `{"identity":"bob@example.com","count":3}`)
		s.call("List", `{"identity":"alice@example.com"}`)
	}
	s.call("SignWithLabel", `{"identity":"alice@example.com","label":"MyProtocol","content":"AAE="}`)
	page := "http://" + s.addr + "/status?pause"
	path := filepath.Join(t.TempDir(), "status.png")
	var picture image.Image
	for _, look := range []struct {
		dark   bool
		ground color.RGBA
		ink    []color.RGBA // colors that must occur
	}{
		{true, color.RGBA{0x0e, 0x13, 0x18, 255}, []color.RGBA{{0x4c, 0x93, 0xff, 255}, {0x34, 0x67, 0xae, 255}}},
		{false, color.RGBA{0xf4, 0xf6, 0xf8, 255}, []color.RGBA{{0x1f, 0x6f, 0xeb, 255}, {0x8d, 0xb8, 0xf5, 255}, {0xe8, 0xa3, 0x3d, 255}, {0xfd, 0xe6, 0xe6, 255}}},
	} {
		picture = b.shot(page, path, look.dark)
		if size := picture.Bounds().Size(); size.X != 1240 || size.Y != high {
			t.Errorf("the picture is %v", size)
		}
		pixels := make(map[color.RGBA]int)
		for y := range high {
			for x := range 1240 {
				pixels[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
			}
		}
		if got := color.RGBAModel.Convert(picture.At(2, 2)); got != look.ground {
			t.Errorf("dark %v: the ground is %v, want %v", look.dark, got, look.ground)
		}
		for _, c := range look.ink {
			if pixels[c] < 500 {
				t.Errorf("dark %v: %d pixels of %v, want some of the pictures' parts", look.dark, pixels[c], c)
			}
		}
	}
	if !*update {
		return
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, ofFewColors(picture)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(program.Root(), "docs", "status.png"), small.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ofFewColors converts a picture to the colors of the style and the most frequent others, up to
// 256, which halves its size.
func ofFewColors(picture image.Image) image.Image {
	pixels := make(map[color.Color]int)
	size := picture.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			pixels[picture.At(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(pixels), func(a, b color.Color) int { return pixels[b] - pixels[a] })
	small := image.NewPaletted(size, stylePalette())
	small.Palette = append(small.Palette, most[:min(len(most), 256-len(small.Palette))]...)
	nearest := make(map[color.Color]uint8)
	for y := range size.Dy() {
		for x := range size.Dx() {
			c := picture.At(x, y)
			if _, known := nearest[c]; !known {
				nearest[c] = uint8(small.Palette.Index(c))
			}
			small.SetColorIndex(x, y, nearest[c])
		}
	}
	return small
}

// stylePalette returns the colors that the style names.
func stylePalette() (of color.Palette) {
	style, _ := os.ReadFile(filepath.Join(program.Root(), "internal", "observe", "status.css"))
	for _, hex := range regexp.MustCompile(`#[0-9a-f]{6}\b`).FindAllString(string(style), -1) {
		c := color.RGBA{A: 255}
		fmt.Sscanf(hex, "#%02x%02x%02x", &c.R, &c.G, &c.B)
		of = append(of, c)
	}
	return of
}

// The proxy sees what a page requests: a page that loads something from elsewhere is detected.
func TestTheProxySeesWhatAPageLoads(t *testing.T) {
	b := openBrowser(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<img src="http://elsewhere.example/a.png">`)
	}))
	defer other.Close()
	b.run(other.URL+"/", "--dump-dom")
	if seen := b.asked(); !slices.Contains(seen, "GET http://elsewhere.example/a.png") {
		t.Errorf("the proxy saw %q, want the picture from elsewhere", seen)
	}
}

func TestTheScreenshotInDocs(t *testing.T) {
	path := filepath.Join(program.Root(), "docs", "status.png")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 200<<10 {
		t.Errorf("docs/status.png has %d bytes, want 200 KiB at most", info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Error(err)
	}
}
