//go:build unix

package engine

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

// why loads a library and returns the loader's complaint, or NULL when it loads.
static const char *why(const char *path) {
	void *handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	if (handle == NULL) {
		return dlerror();
	}
	dlclose(handle);
	return NULL;
}
*/
import "C"

import (
	"runtime"
	"strings"
	"unsafe"
)

// whyNotLoaded says why the library at path does not load. miekg/pkcs11 does not return the
// reason.
func whyNotLoaded(path string) string {
	runtime.LockOSThread() // dlerror belongs to the thread
	defer runtime.UnlockOSThread()
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	if text := C.why(p); text != nil {
		return strings.TrimPrefix(C.GoString(text), path+": ")
	}
	return "not a PKCS#11 library: it has no C_GetFunctionList"
}
