package manifest_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/manifest"
)

const jsonLines = `{"name":"a"}

{"name":"b","identity":"user b","suite":1,"count":5,"last_resort":true,"labels":{"site":"Basel"}}
{"name":"c","suite":"MLS_128_DHKEMP256_AES128GCM_SHA256_P256","credential":"x509","certificate":"c.pem","subject":"CN=c","dns_names":["c.example.com","c2.example.com"],"uris":["spiffe://example.com/c"],"count":0,"custody":"token"}
{"name":"d","custody":"device","init_key":"AQI=","encryption_key":"AwQ="}
{"name":"e","custody":"release","release_key":"BQY=","count":3,"last_resort":true}
`

const csvLines = `name,identity,suite,credential,certificate,subject,dns_names,uris,count,last_resort,custody,init_key,encryption_key,release_key,label.site
a,,,,,,,,,,,,,,

b,user b,1,,,,,,5,true,,,,,Basel
c,,MLS_128_DHKEMP256_AES128GCM_SHA256_P256,x509,c.pem,CN=c,c.example.com c2.example.com,spiffe://example.com/c,0,,token,,,,
d,,,,,,,,,,device,AQI=,AwQ=,,
e,,,,,,,,3,true,release,,,BQY=,
`

func want(first int) []manifest.Line {
	return []manifest.Line{
		{Number: first, Name: "a", Credential: "basic", Count: 1},
		{Number: first + 2, Name: "b", Identity: "user b", Suite: "1", Credential: "basic", Count: 5, LastResort: true, Labels: map[string]string{"site": "Basel"}},
		{
			Number: first + 3, Name: "c", Suite: "MLS_128_DHKEMP256_AES128GCM_SHA256_P256", Credential: "x509", Certificate: "c.pem", Subject: "CN=c",
			DNSNames: []string{"c.example.com", "c2.example.com"}, URIs: []string{"spiffe://example.com/c"}, Custody: "token",
		},
		{Number: first + 4, Name: "d", Credential: "basic", Count: 1, Custody: "device", InitKey: []byte{1, 2}, EncryptionKey: []byte{3, 4}},
		{Number: first + 5, Name: "e", Credential: "basic", Count: 3, LastResort: true, Custody: "release", ReleaseKey: []byte{5, 6}},
	}
}

func TestBothFormsSayTheSame(t *testing.T) {
	got, err := manifest.ParseJSONLines(strings.NewReader(jsonLines))
	if err != nil || !reflect.DeepEqual(got, want(1)) {
		t.Errorf("ParseJSONLines() = %+v, %v, want %+v", got, err, want(1))
	}
	got, err = manifest.ParseCSV(strings.NewReader("\ufeff" + csvLines)) // as spreadsheets write
	if err != nil || !reflect.DeepEqual(got, want(2)) {
		t.Errorf("ParseCSV() = %+v, %v, want %+v", got, err, want(2))
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		parse func(string) error
		text  string
		want  []string
	}{
		"JSON": {parseJSON, strings.Join([]string{
			`{"name":"a"`, `{"name":"b"} {}`, `{"name":"c","colour":"red"}`, `[1]`, `{"name":3}`, `{"suite":true,"name":"e"}`,
			`{}`, `{"name":"f"}`, `{"name":"f"}`, `{"name":"g","count":1000001}`, `{"name":"h","credential":"token"}`,
			`{"name":"i","certificate":"i.pem"}`, `{"name":"j","credential":"x509","identity":"j"}`, `{"name":"k","custody":"device"}`,
			`{"name":"l","init_key":"AQI="}`, `{"name":"m","custody":"cloud"}`, `{"name":"n","custody":"device","init_key":"AQ==","encryption_key":"Ag==","count":2}`,
			`{"name":"o","init_key":"!"}`, `{"name":"p","custody":"release"}`, `{"name":"q","custody":"device","init_key":"AQ==","encryption_key":"Ag==","release_key":"AQ=="}`,
			`{"name":"r","custody":"release","release_key":"AQ==","init_key":"AQ=="}`,
		}, "\n"), []string{
			"line 1: the JSON object does not end", "line 2: something follows the object", `line 3: json: unknown field "colour"`,
			"line 4: a line: a JSON array does not belong here", "line 5: name: a JSON number", "line 6: suite must be a name or a number",
			"line 7: name is missing", `line 9: device "f" is on line 8 already`, "line 10: count is 1000001, at most 1000000",
			`line 11: credential "token" is neither basic nor x509`, "line 12: certificate, subject", "line 13: identity is for credential basic",
			"line 14: custody device needs init_key and encryption_key", "line 15: init_key and encryption_key are for custody device",
			`line 16: custody "cloud" is not one of wrapped, token, device and release`, "line 17: custody device makes one key package", "line 18: a key is not base64 with padding",
			"line 19: custody release needs release_key", "line 20: release_key is for custody release", "line 21: init_key and encryption_key are for custody device",
		}},
		"CSV": {parseCSV, "name,count,last_resort,init_key\na,x,,\nb,,yes,\nc,,,!\n", []string{
			`line 2: count: "x" is not a number`, `line 3: last_resort: "yes" is neither true nor false`, "line 4: init_key: it is not base64 with padding",
		}},
		"CSV, columns":       {parseCSV, "name,colour,name,label.\n", []string{`there is no column "colour"`, `there are two columns "name"`, `no column "label."`}},
		"CSV, semicolons":    {parseCSV, "name;count\na;2\n", []string{"line 1: there are semicolons"}},
		"CSV, cells":         {parseCSV, "name,count\na\n", []string{"line 2: wrong number of fields"}},
		"CSV, quotes":        {parseCSV, "name\n\"a\n", []string{"line 2: extraneous or missing"}},
		"nothing, in JSON":   {parseJSON, "\n\n", []string{"it names no device"}},
		"nothing, in CSV":    {parseCSV, "", []string{"it names no device"}},
		"only a header":      {parseCSV, "name\n", []string{"it names no device"}},
		"a line without end": {parseJSON, `{"name":"a"}` + "\n" + strings.Repeat("x", 1<<20+1), []string{"line 2: it is longer than 1048576 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.parse(c.text)
			if err == nil {
				t.Fatal("err = nil")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("err = %v, want %q in it", err, want)
				}
			}
		})
	}
}

func parseJSON(text string) error {
	_, err := manifest.ParseJSONLines(strings.NewReader(text))
	return err
}

func parseCSV(text string) error {
	_, err := manifest.ParseCSV(strings.NewReader(text))
	return err
}

func TestTwentyFaultsAreEnough(t *testing.T) {
	err := parseJSON(strings.Repeat("{}\n", 30))
	var faults *manifest.Error
	if !errors.As(err, &faults) || len(faults.Faults) != 30 {
		t.Fatalf("err = %v, want thirty faults", err)
	}
	if text := err.Error(); strings.Count(text, "\n") != 20 || !strings.HasSuffix(text, "\nand 10 more") {
		t.Errorf("Error() = %q", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(jsonLines)
	f.Add(csvLines)
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) error{parseJSON, parseCSV} {
			if err := parse(text); err != nil && err.Error() == "" {
				t.Error("an error without a text")
			}
		}
	})
}
