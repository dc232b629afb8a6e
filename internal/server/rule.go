package server

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Rule grants operations on identities to callers. Names are compared byte by byte.
type Rule struct {
	// Name is the rule's name in the config.
	Name string
	// URIs, DNSNames and Emails are alternative names of certificates, Subjects their subjects (RFC
	// 2253). UIDs and GIDs are those of processes that connect over a Unix socket.
	URIs, DNSNames, Emails, Subjects []string
	UIDs, GIDs                       []uint32
	// Identities are names, in which * matches any text.
	Identities []string
	Operations []act.Act
	// Quota is how much the rule allows in a period, for all its callers together: generate, claim
	// and publish count one for each key package, other operations 1. 0 means no limit.
	Quota  uint64
	Period time.Duration
	// Rate is how many requests the rule allows, for all its callers together.
	Rate Rate
}

// grants reports whether the rule covers an operation on an identity.
func (r *Rule) grants(op act.Act, identity string) bool {
	return slices.Contains(r.Operations, op) &&
		slices.ContainsFunc(r.Identities, func(pattern string) bool { return matches(pattern, identity) })
}

// matches reports whether name matches the pattern, in which * matches any text.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

// quota counts what a rule has allowed in the current period. It lives in memory: another process,
// or the same one after a restart, starts from zero.
type quota struct {
	mu    sync.Mutex
	ends  time.Time
	spent uint64
}

// take counts n and returns 0. If less than n is left, it counts nothing and returns how long it is
// until the period ends.
func (q *quota) take(r *Rule, n uint64, now time.Time) time.Duration {
	if r.Quota == 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !now.Before(q.ends) {
		q.ends, q.spent = now.Add(r.Period), 0
	}
	if n > r.Quota-min(q.spent, r.Quota) {
		return q.ends.Sub(now)
	}
	q.spent += n
	return 0
}
