package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// pool bounds how many operations run at once and keeps the sessions they used.
type pool struct {
	open    func() (*Session, error)
	permits chan struct{} // one element for each operation that runs, or that may not run
	closing chan struct{} // closed once the link is given up
	stuck   chan struct{} // closed once the module did not answer: running operations keep their permit
	waiting atomic.Int64  // operations that wait for a permit

	mu    sync.Mutex
	idle  []*Session
	epoch uint64 // of handles; sessions of an earlier one are not kept
	out   int    // sessions in use

	// The token may have fewer sessions than it reports: then operations wait for those there
	// are. Now and then one permit is given back, to try.
	owed    int // permits that the next operations to end do not give back
	missing int // permits not given back
	since   time.Time
}

// growAfter is how long a permit is missing before it is tried again.
const growAfter = 10 * time.Second

func newPool(size int, epoch uint64, stuck chan struct{}, open func() (*Session, error)) *pool {
	return &pool{
		open:    open,
		permits: make(chan struct{}, size),
		closing: make(chan struct{}),
		stuck:   stuck,
		epoch:   epoch,
	}
}

// acquire waits for a permit, until ctx is done or the link is given up.
func (p *pool) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.closed() {
		return errLinkGone
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	default:
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-p.closing:
		return errLinkGone
	case <-p.stuck:
		return errLinkGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owed > 0 {
		p.owed--
		p.missing++
		return
	}
	<-p.permits
	if p.missing > 0 && time.Since(p.since) > growAfter {
		p.missing--
		p.since = time.Now()
		<-p.permits
	}
}

// take returns an idle session, or a new one. If the token has no more and others are in use, the
// permit is not given back: the next operation waits for one of them.
func (p *pool) take() (*Session, error) {
	p.mu.Lock()
	p.out++
	epoch := p.epoch
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	s, err := p.open()
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.out--
		if FailedWith(err, CKR_SESSION_COUNT) && p.out > 0 {
			p.owed++
			p.since = time.Now()
		}
		return nil, err
	}
	s.epoch = epoch
	return s, nil
}

// put takes a session back. It closes one that is not sound, or of an epoch that has ended.
func (p *pool) put(s *Session, sound bool) {
	s.pulse = nil
	p.mu.Lock()
	p.out--
	keep := sound && s.epoch == p.epoch && !p.closed()
	if keep {
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if !keep {
		_ = s.Close() // something failed before: that error is the one to return
	}
}

// renew begins an epoch: handles are found again, and sessions opened anew.
func (p *pool) renew(epoch uint64) {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.epoch = nil, epoch
	p.mu.Unlock()
	for _, s := range idle {
		_ = s.Close() // it may be gone
	}
}

func (p *pool) usage(u *Usage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.Limit, u.InUse, u.Idle, u.Waiting = cap(p.permits)-p.missing, p.out, len(p.idle), int(p.waiting.Load())
}

func (p *pool) current() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

func (p *pool) closed() bool {
	select {
	case <-p.closing:
		return true
	default:
		return false
	}
}

// giveUp turns new operations away.
func (p *pool) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed() {
		close(p.closing)
	}
}

// drain turns new operations away, and waits for the running ones by taking every permit for
// good. It fails with ErrStuck if one of them does not end.
func (p *pool) drain() error {
	p.giveUp()
	p.mu.Lock()
	taken := p.missing
	p.mu.Unlock()
	for range cap(p.permits) - taken {
		select {
		case p.permits <- struct{}{}:
		case <-p.stuck:
			return ErrStuck
		}
	}
	return nil
}

// discard closes the idle sessions.
func (p *pool) discard() {
	p.giveUp()
	for _, s := range p.forsake() {
		_ = s.Close()
	}
}

// forsake drops the sessions without closing them: the module is about to be finalized.
func (p *pool) forsake() []*Session {
	p.giveUp()
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle
	p.idle = nil
	return idle
}
