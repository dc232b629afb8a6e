//go:build !unix

package engine

// whyNotLoaded says why the library at path is not a module that loads.
func whyNotLoaded(string) string { return "not a PKCS#11 library for this system" }
