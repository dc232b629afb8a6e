package manifest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxLine is the length of the longest line, in bytes.
const maxLine = 1 << 20

// lineJSON is a line of JSON. Binary values are base64 with padding.
type lineJSON struct {
	Name          string            `json:"name"`
	Identity      string            `json:"identity"`
	Suite         suiteJSON         `json:"suite"`
	Credential    string            `json:"credential"`
	Certificate   string            `json:"certificate"`
	Subject       string            `json:"subject"`
	DNSNames      []string          `json:"dns_names"`
	Emails        []string          `json:"emails"`
	URIs          []string          `json:"uris"`
	Count         *uint64           `json:"count"`
	LastResort    bool              `json:"last_resort"`
	Custody       string            `json:"custody"`
	InitKey       []byte            `json:"init_key"`
	EncryptionKey []byte            `json:"encryption_key"`
	ReleaseKey    []byte            `json:"release_key"`
	Labels        map[string]string `json:"labels"`
}

// suiteJSON is a suite's name or its number.
type suiteJSON string

func (s *suiteJSON) UnmarshalJSON(b []byte) error {
	var number uint16
	if json.Unmarshal(b, &number) == nil {
		*s = suiteJSON(strconv.FormatUint(uint64(number), 10))
		return nil
	}
	var name string
	if json.Unmarshal(b, &name) != nil {
		return errors.New("suite must be a name or a number")
	}
	*s = suiteJSON(name)
	return nil
}

// ParseJSONLines reads a manifest with one JSON object a line, each of at most 1 MiB. It skips
// empty lines and refuses unknown keys. It returns an *Error with the faults of all lines, or the
// error of r.
func ParseJSONLines(r io.Reader) ([]Line, error) {
	var lines []Line
	var f faults
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	number := 0
	for s.Scan() {
		number++
		text := bytes.TrimSpace(s.Bytes())
		if len(text) == 0 {
			continue
		}
		l, err := parseObject(text)
		l.Number = number
		if err != nil {
			f.add(number, "%v", err)
			continue
		}
		lines = append(lines, l)
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		f.add(number+1, "it is longer than %d bytes", maxLine)
	} else if s.Err() != nil {
		return nil, s.Err()
	}
	return finish(lines, &f)
}

func finish(lines []Line, f *faults) ([]Line, error) {
	check(lines, f)
	if err := f.error(); err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, ErrEmpty
	}
	return lines, nil
}

func parseObject(text []byte) (Line, error) {
	var j lineJSON
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return Line{}, describe(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Line{}, errors.New("something follows the object")
	}
	return j.line(), nil
}

// describe converts the decoder's error, which is in terms of Go, to words for users.
func describe(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("%s: a JSON %s does not belong here", orObject(kind.Field), kind.Value)
	}
	if as := base64.CorruptInputError(0); errors.As(err, &as) {
		return errors.New("a key is not base64 with padding")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON object does not end")
	}
	return err
}

func orObject(field string) string {
	if field == "" {
		return "a line"
	}
	return field
}

func (j *lineJSON) line() Line {
	l := Line{
		Name: j.Name, Identity: j.Identity, Suite: string(j.Suite), Credential: j.Credential, Certificate: j.Certificate,
		Subject: j.Subject, DNSNames: j.DNSNames, Emails: j.Emails, URIs: j.URIs, Count: 1, LastResort: j.LastResort,
		Custody: j.Custody, InitKey: j.InitKey, EncryptionKey: j.EncryptionKey, ReleaseKey: j.ReleaseKey, Labels: j.Labels,
	}
	if j.Count != nil {
		l.Count = *j.Count
	}
	if l.Credential == "" {
		l.Credential = Basic
	}
	return l
}
