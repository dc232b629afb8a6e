package scale

import (
	"cmp"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token"
)

var identities = flag.String("identities", "", "measure with so many identities in one token, such as 10,100,1000,10000, instead of holding calls alone")

// TestGrowth prints how start-up, finding a key and generating for one identity grow with the
// identities in one token, and the token's own share.
func TestGrowth(t *testing.T) {
	if *identities == "" {
		t.Skip("a measurement: see -identities")
	}
	i := program.Install(t)
	i.Edit("timeout: 30s", "timeout: 10m") // C_Initialize alone may take longer if the machine is busy
	rows := [][]string{{"identities"}, {"filled in"}}
	add := func(name, value string) {
		at := slices.IndexFunc(rows, func(row []string) bool { return row[0] == name })
		if at < 0 {
			at, rows = len(rows), append(rows, []string{name})
		}
		rows[at] = append(rows[at], value)
	}
	have := 0
	for _, text := range strings.Split(*identities, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n <= have {
			t.Fatalf("-identities %q: numbers that grow are wanted", *identities)
		}
		add("identities", text)
		add("filled in", fmt.Sprintf("%.1f s", timed(i, "provision", "--manifest", manifest(t, have+1, n, 1)).Seconds()))
		have = n
		measureGrowth(t, i, n, add)
		table(t, "so far", rows)
		measureFleet(t, i, n, add)
	}
	table(t, "all", rows)
}

// repeat is how often each thing is measured; the median counts.
const repeat = 3

func measureGrowth(t *testing.T, i *program.Installation, n int, add func(name, value string)) {
	name := device(n / 2)
	id := keyID(t, i, name)
	var open, find, end, sign, one, hundred, csr, first, second, found, signed []time.Duration
	for range repeat {
		b := openBare(t, i)
		open = append(open, b.opened)
		objects, took := b.find(id)
		_, again := b.find(id) // the first may cost more
		find = append(find, took, again)
		sign = append(sign, b.sign(objects, 200))
		end = append(end, b.close())
		one = append(one, timed(i, "generate", "--identity", name, "--count", "1"))
		hundred = append(hundred, timed(i, "generate", "--identity", name, "--count", "100"))
		csr = append(csr, timed(i, "identity", "csr", name, "--subject", "CN=x"))
		l := openLibrary(t, i, id)
		first, second = append(first, l.opened), append(second, l.found)
		found, signed = append(found, l.again), append(signed, l.signed)
	}
	share := median(open) + 2*median(find) + median(end) // the wrapping key, and the signature key
	add("token: C_Initialize to C_Login", ms(median(open)))
	add("token: one search by CKA_ID", ms(median(find)))
	add("token: C_Finalize", ms(median(end)))
	add("token: one signature", ms(median(sign)))
	add("token: start, two searches, end: its share", ms(share))
	add("generate --count 1, whole process", ms(median(one)))
	add("  of it beyond the token's share (1)", ms(median(one)-share))
	add("generate --count 100, whole process", ms(median(hundred)))
	add("  of it beyond the token's share (100)", ms(median(hundred)-share))
	add("identity csr, whole process", ms(median(csr)))
	add("  of it beyond the token's share (csr)", ms(median(csr)-share))
	add("library: open", ms(median(first)))
	add("library: find a key the first time", ms(median(second)))
	add("library: use a key that is known, once", ms(median(found)))
	add("library: one signature of many", ms(median(signed)))
}

// measureFleet measures what concerns all identities.
func measureFleet(t *testing.T, i *program.Installation, n int, add func(name, value string)) {
	add("provision, all done", ms(timed(i, "provision", "--manifest", manifest(t, 1, n, 1))))
	took := timed(i, "provision", "--manifest", manifest(t, 1, n, 2))
	add("one more key package for each, whole", ms(took))
	add("  of it for a device", ms(took/time.Duration(n)))
	add("doctor, which tries every key", ms(timed(i, "doctor")))
}

func keyID(t *testing.T, i *program.Installation, name string) []byte {
	t.Helper()
	var shown struct {
		KeyID string `json:"key_id"`
	}
	if err := json.Unmarshal(i.Run("identity", "show", name, "--json"), &shown); err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(shown.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// library is how long package token takes in one process.
type library struct{ opened, found, again, signed time.Duration }

func openLibrary(t *testing.T, i *program.Installation, id []byte) (l library) {
	t.Helper()
	t.Setenv("SOFTHSM2_CONF", filepath.Join(i.Dir, "softhsm2.conf"))
	module, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	tok, err := token.Open(context.Background(), token.Config{Module: module, Label: "hsm-kp", PIN: token.File(filepath.Join(i.Dir, "pin"))})
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	l.opened = time.Since(start)
	start = time.Now()
	key, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	l.found = time.Since(start)
	sign := func(n int) time.Duration {
		start := time.Now()
		for range n {
			if _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(start) / time.Duration(n)
	}
	l.again = sign(1)
	l.signed = sign(200)
	return l
}

func median(all []time.Duration) time.Duration {
	slices.SortFunc(all, cmp.Compare)
	return all[len(all)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
