package store

import "slices"

// State is where a key package is in its life.
type State string

// The states of a key package.
const (
	// Pending: on its way to a folder or to a directory, and perhaps there already. It is handed
	// out to nobody else.
	Pending State = "pending"
	// Available: made, and not handed out.
	Available State = "available"
	// Published: handed out to a directory. It must not be handed out again.
	Published State = "published"
	// Claimed: handed out to somebody who is about to add its client to a group.
	Claimed State = "claimed"
	// Reserved: being opened with a Welcome, for a while. Nobody else opens it then.
	Reserved State = "reserved"
	// Consumed: used up by a Welcome. Its private init key is erased. That of its leaf may be
	// kept for a while.
	Consumed State = "consumed"
	// Retired: replaced by others. It is no longer handed out, and opens Welcomes for a time of
	// grace.
	Retired State = "retired"
	// Expired: its lifetime is over. It opens late Welcomes for a time of grace.
	Expired State = "expired"
	// Erased: its private keys were erased, and no Welcome was opened with it.
	Erased State = "erased"
)

// States are all states, in the order of a life.
var States = []State{Pending, Available, Published, Claimed, Reserved, Consumed, Retired, Expired, Erased}

// Step leads from one state to another.
type Step string

// The steps of a life.
const (
	Write   Step = "write"   // begin to write it to a folder, or to send it to a directory
	Publish Step = "publish" // others can take it
	Claim   Step = "claim"   // hand it to somebody who adds its client
	Reserve Step = "reserve" // open a Welcome with it
	Release Step = "release" // return it, or the reservation's time is over
	Consume Step = "consume" // the Welcome was the one
	Retire  Step = "retire"  // others take its place
	Expire  Step = "expire"  // its lifetime is over
	Erase   Step = "erase"   // its grace is over, or its wrapping key is destroyed

	// Steps of one whose private keys are for a device:
	HandOver Step = "hand over" // the device is about to get them
	Confirm  Step = "confirm"   // the device has them, and they are erased here
)

// Steps are all steps.
var Steps = []Step{Write, Publish, Claim, Reserve, Release, Consume, Retire, Expire, Erase, HandOver, Confirm}

// Transition is a step between two states.
type Transition struct {
	From State
	Step Step
	To   State
}

// Transitions are all that there are. A key package is born pending or available. One that is
// released, and one of last resort that would be consumed, returns to the state that it was reserved
// from, unless it was retired or expired meanwhile. One whose private keys are for a device is never
// reserved. To hand them over, and to erase them once the device has them, leaves its state as it is.
var Transitions = transitions()

func transitions() []Transition {
	var all []Transition
	add := func(step Step, to State, from ...State) {
		for _, f := range from {
			all = append(all, Transition{f, step, to})
		}
	}
	add(Write, Pending, Pending, Available, Published)
	add(Publish, Published, Pending, Available, Published)
	add(Claim, Claimed, Available)
	add(Reserve, Reserved, Pending, Available, Published, Claimed, Reserved, Retired, Expired)
	for _, to := range []State{Pending, Available, Published, Claimed, Retired, Expired} {
		add(Release, to, Reserved)
		add(Consume, to, Reserved) // of last resort
	}
	add(Consume, Consumed, Reserved)
	add(Retire, Retired, Pending, Available, Published, Claimed)
	add(Retire, Reserved, Reserved) // what it was reserved from is retired
	add(Expire, Expired, Pending, Available, Published, Claimed)
	for _, s := range []State{Pending, Available, Published, Claimed, Retired, Expired} {
		add(HandOver, s, s)
		add(Confirm, s, s)
	}
	add(Erase, Erased, Pending, Available, Published, Claimed, Reserved, Retired, Expired)
	return all
}

// Allowed reports whether a step leads from one state to another.
func Allowed(from State, step Step, to State) bool {
	return slices.Contains(Transitions, Transition{from, step, to})
}

// Open reports whether the private init key of a key package in this state still exists, here or
// on its device.
func (s State) Open() bool { return s != Consumed && s != Erased }
