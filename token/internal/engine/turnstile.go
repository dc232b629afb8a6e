package engine

import "sync"

// turnstile keeps calls of two kinds from running at the same time; calls of one kind run
// together. While calls of one kind wait, no more of the other are let in: each kind gets its
// turn.
type turnstile struct {
	mu      sync.Mutex
	kind    int // of those that run
	running int
	waiting [2][]chan struct{}
}

// The two kinds of calls.
const (
	searching = iota
	making
)

// enter waits until no call of the other kind runs.
func (a *turnstile) enter(kind int) {
	a.mu.Lock()
	if a.running == 0 || a.kind == kind && len(a.waiting[1-kind]) == 0 {
		a.kind = kind
		a.running++
		a.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	a.waiting[kind] = append(a.waiting[kind], turn)
	a.mu.Unlock()
	<-turn
}

// leave ends what enter began. The last call to leave lets in all waiting calls of the other
// kind.
func (a *turnstile) leave(kind int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running--; a.running > 0 {
		return
	}
	next := 1 - kind
	if len(a.waiting[next]) == 0 {
		next = kind
	}
	a.kind, a.running = next, len(a.waiting[next])
	for _, turn := range a.waiting[next] {
		close(turn)
	}
	a.waiting[next] = nil
}
