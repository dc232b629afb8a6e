package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

const results = `{"line":1,"name":"a","status":"ready","key_packages":[{"key_package_ref":"0a0b","custody":"release","confirmed":false,"released":{"enc":"AA=="}},{"key_package_ref":"0c","custody":"release","confirmed":true}]}
{"line":2,"name":"b","status":"failed","error":"no"}

{"line":3,"name":"c","key_packages":[{"key_package_ref":"0d0e","released":{}},{"key_package_ref":"0f","released":null}]}
`

func TestWhatWasHandedOverIsReadFromResults(t *testing.T) {
	got, err := readResults(strings.NewReader(results))
	if want := [][]byte{{10, 11}, {13, 14}}; err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("readResults() = %x, %v, want %x", got, err, want)
	}
	for _, text := range []string{
		"{}", "null", "[]", "3", "name,count", `{"name":3}`, `{"name":"a","count":3}`, `{"name":"a"}{`, `{"name":"a"} x`,
		`{"name":"a","key_packages":[{"key_package_ref":"xy","released":{}}]}`, `{"name":"a","key_packages":[{"released":{}}]}`,
	} {
		if refs, err := readResults(strings.NewReader(text)); !errors.Is(err, errNotResults) || refs != nil {
			t.Errorf("readResults(%s) = %x, %v, want %v", text, refs, err, errNotResults)
		}
	}
}

func FuzzReadResults(f *testing.F) {
	f.Add(results)
	f.Add(`{"name":"a","key_packages":[{"key_package_ref":"xy","released":{}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		refs, err := readResults(strings.NewReader(text))
		switch {
		case err != nil && (refs != nil || !errors.Is(err, errNotResults)):
			t.Errorf("readResults() = %x, %v", refs, err)
		case slices.ContainsFunc(refs, func(ref []byte) bool { return !strings.Contains(strings.ToLower(text), hex.EncodeToString(ref)) }) && !strings.Contains(text, `\u`):
			t.Errorf("readResults() = %x, which the text does not have", refs)
		}
	})
}

func TestARefIsConfirmedOnce(t *testing.T) {
	if got := once([][]byte{{1}, {2}, {1}, {3}, {2}}); !slices.EqualFunc(got, [][]byte{{1}, {2}, {3}}, bytes.Equal) {
		t.Errorf("once() = %x", got)
	}
}

// Results without custody release have nothing of it.
func TestResultsOfOtherCustodiesAreAsTheyWere(t *testing.T) {
	text, err := json.Marshal(provisionedKeyPackage{Ref: "ab", Custody: "wrapped"})
	if err != nil || strings.Contains(string(text), "released") || strings.Contains(string(text), "confirmed") || strings.Contains(string(text), "mls_message") {
		t.Errorf("a result is %s, %v", text, err)
	}
}
