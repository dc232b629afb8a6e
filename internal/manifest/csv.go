package manifest

import (
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// labelPrefix is the prefix of columns that hold labels.
const labelPrefix = "label."

// column parses the text of a cell into a line.
type column func(l *Line, text string) error

// columns are the columns of a manifest in CSV, named like the JSON keys. Lists are separated by
// spaces.
var columns = map[string]column{
	"name":           func(l *Line, text string) error { l.Name = text; return nil },
	"identity":       func(l *Line, text string) error { l.Identity = text; return nil },
	"suite":          func(l *Line, text string) error { l.Suite = text; return nil },
	"credential":     func(l *Line, text string) error { l.Credential = text; return nil },
	"certificate":    func(l *Line, text string) error { l.Certificate = text; return nil },
	"subject":        func(l *Line, text string) error { l.Subject = text; return nil },
	"dns_names":      func(l *Line, text string) error { l.DNSNames = strings.Fields(text); return nil },
	"emails":         func(l *Line, text string) error { l.Emails = strings.Fields(text); return nil },
	"uris":           func(l *Line, text string) error { l.URIs = strings.Fields(text); return nil },
	"custody":        func(l *Line, text string) error { l.Custody = text; return nil },
	"count":          func(l *Line, text string) (err error) { l.Count, err = parseCount(text); return err },
	"last_resort":    func(l *Line, text string) (err error) { l.LastResort, err = parseTruth(text); return err },
	"init_key":       func(l *Line, text string) (err error) { l.InitKey, err = parseBase64(text); return err },
	"encryption_key": func(l *Line, text string) (err error) { l.EncryptionKey, err = parseBase64(text); return err },
	"release_key":    func(l *Line, text string) (err error) { l.ReleaseKey, err = parseBase64(text); return err },
}

func parseCount(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return n, nil
}

func parseTruth(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, fmt.Errorf("%q is neither true nor false", text)
	}
	return text == "true", nil
}

func parseBase64(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("it is not base64 with padding")
	}
	return b, nil
}

// ParseCSV reads a manifest in CSV (RFC 4180), whose first line names the columns: the keys of the
// JSON form, and label.X for the label X. An empty cell means that the value is not given. Errors
// are those of ParseJSONLines.
func ParseCSV(r io.Reader) ([]Line, error) {
	c := csv.NewReader(r)
	c.ReuseRecord = true
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, ErrEmpty
	}
	if err != nil {
		return nil, faultOf(err)
	}
	takes, err := columnsOf(header)
	if err != nil {
		return nil, err
	}
	var lines []Line
	var f faults
	for {
		cells, err := c.Read()
		if errors.Is(err, io.EOF) {
			return finish(lines, &f)
		}
		if err != nil {
			return nil, faultOf(err)
		}
		number, _ := c.FieldPos(0)
		l := Line{Number: number, Count: 1, Credential: Basic}
		for i, text := range cells {
			if text == "" {
				continue
			}
			if err := takes[i].take(&l, text); err != nil {
				f.add(number, "%s: %v", takes[i].name, err)
			}
		}
		lines = append(lines, l)
	}
}

// named is a column of one file.
type named struct {
	name string
	take column
}

func columnsOf(header []string) ([]named, error) {
	var out []named
	var f faults
	seen := make(map[string]bool)
	if len(header) == 1 && strings.Contains(header[0], ";") {
		f.add(1, "there are semicolons where commas should separate the columns")
		return nil, f.error()
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff") // some spreadsheets write it
	for _, name := range header {
		if seen[name] {
			f.add(1, "there are two columns %q", name)
		}
		seen[name] = true
		take := columns[name]
		if label, ok := strings.CutPrefix(name, labelPrefix); ok && label != "" {
			take = func(l *Line, text string) error { l.label(label, text); return nil }
		}
		if take == nil {
			f.add(1, "there is no column %q", name)
		}
		out = append(out, named{name, take})
	}
	return out, f.error()
}

func (l *Line) label(name, text string) {
	if l.Labels == nil {
		l.Labels = make(map[string]string)
	}
	l.Labels[name] = text
}

// faultOf adds the line to an error of the CSV reader.
func faultOf(err error) error {
	var fault *csv.ParseError
	if errors.As(err, &fault) {
		return &Error{[]Fault{{fault.Line, fault.Err.Error()}}}
	}
	return err
}
