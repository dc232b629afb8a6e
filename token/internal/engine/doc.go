// Package engine keeps a token in use for package token: it loads the module, chooses the
// token, logs in, keeps sessions, runs operations in them, recovers when the session, the
// login, the device or the module is gone, reports calls to a watcher, and makes copies of
// keys where they are faster. It knows objects and handles, and not what they are for: keys,
// wrapping and probing are package token's.
//
// # Words
//
// A link is what an Engine holds of its token at a time: a login, a pool of
// sessions, and the context of crypto11. An Engine has one link or none. Recovery
// replaces the link; an operation that waited for a session of the old one gets
// errLinkGone and is tried again on the new one.
//
// An epoch is a time in which object handles stay valid. Each link begins one,
// and so does each renewal of a link's sessions. Epochs are numbered from 1, in
// each Engine by itself, and are never used again. A session has the epoch in
// which it was opened and is not kept beyond it. The handles of a key have the
// epoch of the session that found them: a session of that epoch, or of an
// earlier one that is still in use, may use them. In a session of a later epoch
// the key is found again and compared (ErrKeyChanged).
//
// A permit is the right to run one operation; a pool has as many as Config.Sessions. A Place
// is where the objects of a key are: handles and their epoch.
//
// # Locks of the process
//
//	modules             the registry of modules. Held while a library is loaded.
//
// # Locks and flags of a module
//
//	module.mu           the life of the module: links, held, initArgs, pinner,
//	                    logins, refused. Whoever initializes, finalizes, logs in,
//	                    or makes or drops a link holds it.
//	module.calls        read: an operation is running in the library. Written:
//	                    nothing else runs there, while it is finalized beneath
//	                    links that are in use, or while a call must have it to
//	                    itself (Quirks.OneAtATime, see Engine.exclusive).
//	module.turns        a lock of two kinds, searching and making: those of one
//	                    kind run together, those of different kinds never do. A
//	                    search must not meet C_GenerateKeyPair, C_GenerateKey or
//	                    C_CopyObject: SoftHSM shows it what is half made.
//	module.logging      counts the beginnings and ends of C_Login; odd during one.
//	                    A search that found nothing compares it: see
//	                    Session.RequireAbsent.
//	module.several      set before the module is in the registry, never changed.
//
// # Locks and flags of an Engine
//
//	Engine.relinking    held by the one goroutine that replaces the link, and by
//	                    Close. Held across calls into the module and while
//	                    running operations are waited for.
//	Engine.link         written under relinking by the Engine itself; a restart of
//	                    another Engine on the module sets it to nil, from the one
//	                    link it has taken away (CompareAndSwap). Read without a
//	                    lock.
//	Engine.over         why nothing is done any more: ErrClosed, ErrStuck,
//	                    ErrKeyChanged. Set once, by CompareAndSwap.
//	Engine.stuck        closed after over is set to ErrStuck. It wakes those that
//	                    wait for a permit, which will not be given back.
//	Engine.info         the token as it was when the link was made.
//	Engine.epochs       the last epoch.
//	Experience          counts of keys that were better off with copies, or not.
//
// # Locks and flags of a link
//
//	pool.permits        a channel of permits: one element for each operation that
//	                    runs, or that may not run.
//	pool.mu             idle sessions, epoch, and the counts of sessions. Not held
//	                    across calls.
//	pool.closing        closed, under mu, once the link is given up.
//	pool.waiting        operations that wait for a permit, for Usage.
//
// # Locks and flags of a key
//
//	Place.mu            the key's handles and their epoch. Held while they are
//	                    found again, which calls the module with the session of
//	                    the operation: others with this key wait.
//	Gauge.mu            what was measured with the key and with copies. Not held
//	                    across calls.
//	Gauge.state         what was decided; read without the lock.
//
// Package token has three more: index.mu (the index of key pairs; not held across
// calls), aesKey.proof (set once: what shows that a key found again is the same), and
// exchanger.mu (the session lent to a caller of Unwrap; held across C_DeriveKey).
//
// # Order
//
// A goroutine that holds a lock of this list may take only those after it:
//
//  1. Engine.relinking (of one Engine only)
//  2. a permit of a pool
//  3. module.mu
//  4. module.calls
//  5. Place.mu, or exchanger.mu of package token
//  6. module.turns
//  7. pool.mu, Gauge.mu, index.mu of package token: nothing is taken under these
//
// An operation holds a permit and then module.calls for reading. It never takes
// relinking or module.mu: it returns its error first, and recovery begins when
// it holds nothing. For this reason relinking may be held while the permits of a
// link are waited for (pool.drain), and module.mu while module.calls is taken
// for writing (restart).
//
// modules is taken by itself; loading a library takes nothing else.
//
// # A module that does not answer
//
// A call into a module cannot be stopped. Each is made by a goroutine that is
// left behind after Config.Timeout, with every lock that it has (answer). So a
// lock that is held across calls is waited for either in such a goroutine or
// after a look at Engine.stuck, and Close returns ErrStuck without waiting.
package engine
