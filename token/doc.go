// Package token opens a token through its PKCS#11 module (a Cryptoki library),
// logs in, and offers what hsm-kp needs of it: signature keys, wrapping keys,
// RSA keys that decrypt, private keys for ECDH under a wrapping key, random
// bytes, and a probe that tries what the token can do.
//
// # Three ways into one module
//
// Three pieces of code call the same library in the same process:
//
//   - crypto11 initializes the module (C_Initialize), finds the token and
//     finalizes the module (C_Finalize). It refuses a module that somebody else
//     has initialized, so it comes first and goes last. It is not used for a
//     module that takes arguments of C_Initialize (Quirks.InitArgs), which it
//     cannot pass, or for one that gives each caller functions and state of
//     their own, as p11-kit's client does. This package initializes and
//     finalizes such a module itself.
//   - miekg/pkcs11 logs in, opens and closes sessions, and generates, finds,
//     reads, unwraps, derives, copies and destroys objects.
//   - The C code of onecall signs (ECDSA and EdDSA), encrypts and decrypts by
//     AES-GCM, decrypts by RSA-OAEP, wraps, and reads attributes: the call that
//     begins the operation and the operation itself, in one crossing of cgo and
//     into a buffer that is large enough. The other two ask for a length first,
//     which behind a network HSM is a round trip in three.
//
// All three load the library by the same path. The dynamic loader returns the
// same copy of it, so that they share its state: what one has initialized is
// initialized for all, and a login and the handles of token objects hold for
// the sessions of all. Each has sessions of its own.
//
// ECDSA goes through crypto11 only if Quirks.LibraryCalls is set or onecall
// cannot be used; the other operations of onecall then go through miekg/pkcs11.
// Nothing above this package can tell which way is in use. No other package
// imports these libraries, and no exported signature shows a type of theirs.
//
// # One module, many Tokens
//
// A process initializes a module once, and a login holds for all its sessions
// with one token. A registry keeps the modules of the process: the first Token
// opened on a module initializes it, and the last one closed finalizes it.
// Several Tokens of one module may be open at once. A module reads its
// environment (SOFTHSM2_CONF and the like) when it is initialized: a change
// takes effect once every Token of the module is closed.
//
// A session belongs to one goroutine at a time. It is closed after a failed
// call, which may have left an operation active. All exported functions and
// methods are safe for concurrent use.
//
// # Where things are
//
// The module, the choice of a token, login, sessions, recovery, watching and
// session copies are in internal/engine. Its package comment lists each lock and
// flag, what it guards, and the order in which they are taken. This package has
// what the objects of the token are for: keys, wrapping and probing; beside them
// stand URIs and the sources of a PIN.
package token
