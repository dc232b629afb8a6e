package token

import (
	"time"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Step is a step of a recovery, from the least to the most.
type Step int

// The steps of a recovery. The first time, an operation is tried again at the step that
// its error asks for; each time after, at the next one, until the last.
const (
	// StepNone: the error does not say that anything is gone.
	StepNone = Step(engine.StepNone)
	// StepWait: another session becomes free, or the token comes back.
	StepWait = Step(engine.StepWait)
	// StepSession: the idle sessions are closed, and keys are found again.
	StepSession = Step(engine.StepSession)
	// StepLogin: a new context is opened beside the old one, which logs in if the login is
	// lost, and the old one is closed.
	StepLogin = Step(engine.StepLogin)
	// StepModule: the module is finalized (C_Finalize) and initialized again, for all Tokens
	// of this process that are open on it.
	StepModule = Step(engine.StepModule)
	// StepDone: the operation succeeded after all. It is reported and never taken.
	StepDone = Step(engine.StepDone)
)

// String says what the step does.
func (s Step) String() string {
	switch s {
	case StepWait:
		return "waiting"
	case StepSession:
		return "opening new sessions"
	case StepLogin:
		return "logging in again"
	case StepModule:
		return "initializing the module again"
	case StepDone:
		return "done"
	}
	return "nothing"
}

// Recovery describes one step of a recovery.
type Recovery struct {
	Step  Step
	Cause error         // what the operation failed with; nothing secret; nil with StepDone
	Try   int           // the first is 1
	Delay time.Duration // before the operation is tried again
	Since time.Duration // the first fault of the operation
}

func recoveryOf(r engine.Recovery) Recovery {
	return Recovery{Step(r.Step), r.Cause, r.Try, r.Delay, r.Since}
}

// Call is a call into the module that has returned.
type Call struct {
	// Func is the function of the standard, such as "C_Sign". If the call that begins an
	// operation (C_SignInit) is made together with it, the two count as one under this name,
	// unless the first fails.
	Func string
	RV   RV // what it returned; 0 is CKR_OK
	Took time.Duration
}
