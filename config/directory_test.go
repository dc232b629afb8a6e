package config

import (
	"slices"
	"strings"
	"testing"
)

func TestDirectoriesHaveWhatTheirKindNeeds(t *testing.T) {
	got := faultsOf(t, small+`directories:
  - {name: a, type: ftp, url: "ftp://x"}
  - {name: a, type: spool}
  - {type: http, url: "http://u:p@host/"}
  - {name: b, type: http, url: "http://host/", bearer: {env: A, file: b}}
  - {name: c, type: openmls, url: host, certificate: c.pem}
  - {name: d, type: http, url: "http://host/", bearer: {env: A}}
  - {name: e, type: spool, path: p, deadline: 1s, timeout: 2s}
  - {name: f, type: spool, path: p, lease: 1m}
  - {name: g, type: http, url: "https://h/", headers: {Authorization: x}}
  - {name: h, type: http, url: "https://h/", headers: {"a b": x}}
  - {name: i, type: http, url: "https://h/", headers: {X: "a\nb"}}
replenish: {low: 5, high: 4, directory: other}
identities: {bob: {replenish: {low: 3, high: 2}}}
`)
	want := []string{
		`line 3: directories[0].type must be openmls, http or spool`,
		`line 4: directories[1].name is already the name of another directory`,
		`line 4: directories[1].path is missing: the folder`,
		`line 5: directories[2].name is missing`,
		`line 5: directories[2].url must have no password: see bearer and certificate`,
		`line 6: directories[3].url must be https: the bearer token would go over the network in the clear`,
		`line 6: directories[3].bearer must have exactly one of env, file, systemd, it has 2`,
		`line 7: directories[4].url must be https://HOST/PATH`,
		`line 7: directories[4] must have both certificate and key, or neither`,
		`line 8: directories[5].url must be https: the bearer token would go over the network in the clear`,
		`line 9: directories[6].deadline must not be shorter than timeout, and timeout must be longer than 0`,
		`line 10: directories[7].lease must be twice as long as deadline, or longer`,
		`line 11: directories[8].headers must not have Authorization; a token belongs in bearer`,
		`line 12: directories[9].headers has an invalid header name`,
		`line 13: directories[10].headers must have values of printable ASCII`,
		`line 14: replenish.directory must be the name of one of directories`,
		`line 14: replenish.low must not be more than high, which is 4`,
		`line 15: identities."bob".replenish.directory must be the name of one of directories`,
		`line 15: identities."bob".replenish.low must not be more than high, which is 2`,
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("faults =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDirectoriesHaveDefaultsAndPaths(t *testing.T) {
	c, err := parseText(small + "directories: [{name: a, type: spool, path: out}, {name: b, type: http, url: 'http://127.0.0.1:1/', bearer: {file: t}}]\n" +
		"replenish: {directory: a}\nidentities: {bob: {replenish: {low: 0, high: 0}}}\n")
	if err != nil {
		t.Fatal(err)
	}
	a, ok := c.DirectoryOf("a")
	want := defaultDirectory()
	want.Name, want.Type, want.Path = "a", Spool, "/etc/hsm-kp/out"
	if !ok || a.Path != want.Path || a.Lease != want.Lease || a.Rate != want.Rate || a.Batch != want.Batch {
		t.Errorf("DirectoryOf(a) = %+v, want %+v", a, want)
	}
	if b, _ := c.DirectoryOf("b"); b.Bearer.File != "/etc/hsm-kp/t" {
		t.Errorf("bearer = %+v, want its path absolute", b.Bearer)
	}
	if _, ok := c.DirectoryOf(""); ok {
		t.Error("DirectoryOf() has a directory, want none: there are two")
	}
	if got := c.ReplenishOf("bob"); got.Low != 0 || got.High != 0 || got.Directory != "a" || !got.LastResort {
		t.Errorf("ReplenishOf(bob) = %+v, want none, in a", got)
	}
	if got := c.ReplenishOf("alice"); got.Low != 20 || got.High != 50 {
		t.Errorf("ReplenishOf(alice) = %+v, want the defaults", got)
	}
}
