package token

import "sync"

// apart keeps calls of two kinds from running at once; those of one kind run together. While
// one kind waits, no more of the other are let in, so that each has its turn.
type apart struct {
	mu      sync.Mutex
	kind    int // of those that run
	running int
	waiting [2][]chan struct{}
}

// The kinds of calls that are kept apart.
const (
	searching = iota
	making
)

// enter waits until none of the other kind runs.
func (a *apart) enter(kind int) {
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

// leave ends what enter began. The last one to leave lets in all of the other kind that wait.
func (a *apart) leave(kind int) {
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
