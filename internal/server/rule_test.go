package server

import (
	"testing"
	"time"
)

func TestPatternsStandForNames(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"alice", "alice", true},
		{"alice", "alice2", false},
		{"alice", "", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"relay-*", "relay-", true},
		{"relay-*", "relay-7", true},
		{"relay-*", "relay", false},
		{"relay-*", "", false},
		{"*-eu", "relay-eu", true},
		{"*-eu", "relay-us", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "aXbXc", true},
		{"a*b*c", "acb", false},
		{"ab*ba", "aba", false},
		{"", "", true},
		{"", "alice", false},
	} {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matches(%q, %q) = %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func TestARuleIsForThoseItNames(t *testing.T) {
	rule := Rule{URIs: []string{"spiffe://a"}, Subjects: []string{""}, UIDs: []uint32{7}, GIDs: []uint32{8}}
	for name, tt := range map[string]struct {
		caller Caller
		want   bool
	}{
		"its URI":                 {Caller{URIs: []string{"spiffe://a"}}, true},
		"its URI and another":     {Caller{URIs: []string{"spiffe://b", "spiffe://a"}}, false},
		"its URI in other case":   {Caller{URIs: []string{"SPIFFE://a"}}, false},
		"its URI and a fragment":  {Caller{URIs: []string{"spiffe://a#"}}, false},
		"another URI":             {Caller{URIs: []string{"spiffe://a/b"}}, false},
		"the URI as a DNS name":   {Caller{DNSNames: []string{"spiffe://a"}}, false},
		"its user":                {Caller{Peer: &Peer{UID: 7, GID: 1}}, true},
		"its group":               {Caller{Peer: &Peer{UID: 1, GID: 8}}, true},
		"its user's number":       {Caller{Peer: &Peer{UID: 8, GID: 7}}, false},
		"nobody":                  {Caller{}, false},
		"a certificate, no names": {Caller{Subject: ""}, false},
	} {
		if got := rule.is(tt.caller); got != tt.want {
			t.Errorf("%s: is() = %v, want %v", name, got, tt.want)
		}
	}
}

func TestAQuotaEndsWithItsPeriod(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	rule := &Rule{Quota: 10, Period: time.Hour}
	q := new(quota)
	for _, tt := range []struct {
		n     uint64
		after time.Duration
		want  bool
	}{
		{11, 0, false},
		{6, 0, true},
		{5, time.Minute, false},
		{4, time.Minute, true},
		{1, time.Hour - 1, false},
		{10, time.Hour, true},
		{1<<64 - 1, time.Hour, false},
		{10, 2 * time.Hour, true},
	} {
		if got := q.take(rule, tt.n, now.Add(tt.after)) == 0; got != tt.want {
			t.Errorf("take(%d) after %v = %v, want %v", tt.n, tt.after, got, tt.want)
		}
	}
	if q.take(&Rule{}, 1<<63, now) != 0 {
		t.Error("a rule without a quota refused")
	}
	if got := q.take(rule, 1, now.Add(2*time.Hour+15*time.Minute)); got != 45*time.Minute {
		t.Errorf("take() of what is spent = %v, want the 45 minutes that are left", got)
	}
}
