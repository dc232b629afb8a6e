// Package token is the PKCS#11 room: it loads a module (a Cryptoki library),
// finds a token in one of its slots, logs in, and offers what hsm-kp needs of
// it: signature keys, wrapping keys, private keys for ECDH under one of those,
// random bytes, and a probe that says what the token really does.
//
// Two libraries reach the module. ECDSA signatures go through crypto11; what
// crypto11 lacks or does unsafely (EdDSA, ECDH, AES-GCM, wrapping, generating and
// finding keys) goes through miekg/pkcs11. Both are hidden here: no other package
// imports them, and no type of theirs is in an exported signature.
//
// A module is initialised once a process (C_Initialize), and a login is one for
// all sessions of a process with one token. So modules are kept in a registry
// for the process: the first Token opened on a module initialises it, the last
// one closed finalises it. Several Tokens of one module may be open at once.
// Modules read their environment (SOFTHSM2_CONF and the like) when they are
// initialised: a change takes effect once every Token of the module is closed.
//
// A session belongs to one goroutine at a time and is closed after any failed
// call, because it may be left with an operation active. Everything exported is
// safe for concurrent use.
package token
