package audit

// Act is what was done with a key. Its value is a lower-case word. A trail may hold acts that are
// not in Acts, if a newer program wrote them.
type Act string

// The acts.
const (
	// Created: a key was made in the token: a signature key, a wrapping key, or the audit
	// key.
	Created Act = "created"
	// Imported: a certificate for an identity's key was imported.
	Imported Act = "imported"
	// Requested: a certification request was signed with an identity's key.
	Requested Act = "requested"
	// Generated: a key package was made and signed.
	Generated Act = "generated"
	// Exported: a key package was written to a place from where others take it.
	Exported Act = "exported"
	// HandedOver: private keys were sealed for a device, which is about to get them; the detail has
	// SHA-256 of the public key that they were sealed to.
	HandedOver Act = "handed-over"
	// Confirmed: a device has its private keys, and they were erased from the store.
	Confirmed Act = "confirmed"
	// Claimed: a key package was handed out.
	Claimed Act = "claimed"
	// Reserved: a key package was set aside for one Welcome.
	Reserved Act = "reserved"
	// Unwrapped: private keys were shown to a caller.
	Unwrapped Act = "unwrapped"
	// Decrypted: a path secret was decrypted with the key of a leaf.
	Decrypted Act = "decrypted"
	// Signed: a structure of MLS was signed for a caller, who has its bytes; the detail is
	// its label.
	Signed Act = "signed"
	// Opened: a Welcome was opened with a key package.
	Opened Act = "opened"
	// Released: a reservation was ended without being used.
	Released Act = "released"
	// Consumed: a key package was used up by a Welcome.
	Consumed Act = "consumed"
	// LeafErased: the private key of a leaf, which outlives its key package's
	// init key, was erased.
	LeafErased Act = "leaf-erased"
	// Expired: the lifetime of a key package was over, and no Welcome came.
	Expired Act = "expired"
	// Erased: sealed private keys were erased from the store.
	Erased Act = "erased"
	// Rotated: a key replaced another.
	Rotated Act = "rotated"
	// Rewrapped: private keys, or a stamp, were moved to another wrapping key.
	Rewrapped Act = "rewrapped"
	// Retired: a key is not used for anything new.
	Retired Act = "retired"
	// Condemned: a wrapping key is to be destroyed with the private keys under it, which can no
	// longer be opened.
	Condemned Act = "condemned"
	// Destroyed: a key was destroyed in the token.
	Destroyed Act = "destroyed"
	// Refused: a request was refused.
	Refused Act = "refused"
	// Repaired: what a crash had left in the token was destroyed.
	Repaired Act = "repaired"
)

// Acts lists all acts, in the order of a life.
var Acts = []Act{
	Created, Requested, Imported, Generated, Exported, HandedOver, Confirmed, Claimed, Reserved, Unwrapped,
	Decrypted, Signed, Opened, Released, Consumed, LeafErased, Expired, Erased, Rotated,
	Rewrapped, Retired, Condemned, Destroyed, Refused, Repaired,
}
