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
func (t *turnstile) enter(kind int) {
	t.mu.Lock()
	if t.running == 0 || t.kind == kind && len(t.waiting[1-kind]) == 0 {
		t.kind = kind
		t.running++
		t.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	t.waiting[kind] = append(t.waiting[kind], turn)
	t.mu.Unlock()
	<-turn
}

// leave ends what enter began. The last call to leave lets in all waiting calls of the other
// kind.
func (t *turnstile) leave(kind int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running--; t.running > 0 {
		return
	}
	next := 1 - kind
	if len(t.waiting[next]) == 0 {
		next = kind
	}
	t.kind, t.running = next, len(t.waiting[next])
	for _, turn := range t.waiting[next] {
		close(turn)
	}
	t.waiting[next] = nil
}
