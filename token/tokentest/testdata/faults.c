// A PKCS#11 module for tests that stands before a real one: it passes every call on, and counts,
// delays, fails or spoils calls as a file says that both sides map: see struct control, and
// tokentest.go, which writes it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "pkcs11go.h"

// The functions that can fail, in the order of tokentest.go.
enum {
	F_Initialize, F_Finalize, F_GetInfo, F_GetSlotList, F_GetTokenInfo, F_GetMechanismInfo, F_OpenSession, F_CloseSession,
	F_GetSessionInfo, F_Login, F_Logout, F_CopyObject, F_DestroyObject, F_GetAttributeValue, F_FindObjectsInit, F_FindObjects,
	F_FindObjectsFinal, F_EncryptInit, F_Encrypt, F_DecryptInit, F_Decrypt, F_SignInit, F_Sign, F_GenerateKey,
	F_GenerateKeyPair, F_WrapKey, F_UnwrapKey, F_DeriveKey, F_GenerateRandom, F_COUNT,
};

// The number of rules.
#define RULES 16

struct rule {
	_Atomic long function; // or -1: every one that takes a session
	_Atomic long at;       // the call that fails, 1 is the next one; 0: no rule
	_Atomic long calls;    // how many from then on
	_Atomic long rv;
	_Atomic long seen;     // calls since the rule was set
};

struct control {
	_Atomic long latency;   // microseconds a call
	_Atomic long drop;      // close all sessions at the next call
	_Atomic long down;      // CKR_DEVICE_ERROR while it is set
	_Atomic long sessions;  // the largest number, 0: as the token has it
	_Atomic long mechanism; // that the module hides, 0: none
	_Atomic long spoil;     // the signature to spoil, 1 is the next one; 0: none
	_Atomic long swap;      // the C_SignInit that gets another key of the token, 1 is the next one; 0: none
	_Atomic long nonces;    // the module makes the nonces of AES-GCM, and takes only zeros
	_Atomic long open;      // sessions that are open
	_Atomic long calls[F_COUNT];
	struct rule rules[RULES];
};

// calls_lock: sessions are dropped between calls, not beneath one.
static pthread_rwlock_t calls_lock = PTHREAD_RWLOCK_INITIALIZER;

static CK_FUNCTION_LIST list;
static CK_FUNCTION_LIST_PTR real;
static struct control *control;

static CK_RV ruled(long f, int session) {
	for (int i = 0; i < RULES; i++) {
		struct rule *r = &control->rules[i];
		long at = atomic_load(&r->at);
		if (at == 0 || (r->function != f && !(r->function == -1 && session)))
			continue;
		long n = atomic_fetch_add(&r->seen, 1) + 1;
		if (n >= at && n < at + r->calls)
			return (CK_RV)r->rv;
	}
	return CKR_OK;
}

static void drop_all(void) {
	CK_SLOT_ID slots[64];
	CK_ULONG n = 64;
	pthread_rwlock_wrlock(&calls_lock);
	if (real->C_GetSlotList(CK_TRUE, slots, &n) == CKR_OK) {
		for (CK_ULONG i = 0; i < n; i++)
			real->C_CloseAllSessions(slots[i]);
		atomic_store(&control->open, 0);
	}
	pthread_rwlock_unlock(&calls_lock);
}

// CALL is a call of the real module.
#define CALL(rv, call)                          \
	do {                                        \
		pthread_rwlock_rdlock(&calls_lock);     \
		(rv) = real->call;                      \
		pthread_rwlock_unlock(&calls_lock);     \
	} while (0)


static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

// wait sleeps for so many microseconds. A machine wakes a thread somewhat late: the average delay
// is subtracted beforehand.
static void wait(long us) {
	static _Thread_local double late;
	double from = now(), asked = us - late;
	if (asked > 0)
		usleep((useconds_t)asked);
	late += (now() - from - asked - late) / 8;
}

// enter is called before each call is passed on. A value other than CKR_OK is returned instead of
// the call's.
static CK_RV enter(long f, int session) {
	long us = atomic_load(&control->latency);
	atomic_fetch_add(&control->calls[f], 1);
	if (us > 0)
		wait(us);
	if (session && atomic_exchange(&control->drop, 0))
		drop_all();
	if (session && atomic_load(&control->down))
		return CKR_DEVICE_ERROR;
	return ruled(f, session);
}

static int hidden(CK_MECHANISM_PTR m) {
	long h = atomic_load(&control->mechanism);
	return h != 0 && m != NULL && m->mechanism == (CK_MECHANISM_TYPE)h;
}

#define PASS(name, session, params, args)              \
	static CK_RV my_##name params {                    \
		CK_RV rv = enter(F_##name, session);           \
		if (rv == CKR_OK)                              \
			CALL(rv, C_##name args);                   \
		return rv;                                     \
	}

#define PASS_MECHANISM(name, params, args, m)          \
	static CK_RV my_##name params {                    \
		CK_RV rv = enter(F_##name, 1);                 \
		if (rv == CKR_OK && hidden(m))                 \
			rv = CKR_MECHANISM_INVALID;                \
		if (rv == CKR_OK)                              \
			CALL(rv, C_##name args);                   \
		return rv;                                     \
	}

PASS(Initialize, 0, (CK_VOID_PTR a), (a))
PASS(GetInfo, 0, (CK_INFO_PTR i), (i))
PASS(GetSlotList, 0, (CK_BBOOL p, CK_SLOT_ID_PTR s, CK_ULONG_PTR n), (p, s, n))
PASS(GetTokenInfo, 0, (CK_SLOT_ID s, CK_TOKEN_INFO_PTR i), (s, i))
PASS(GetSessionInfo, 1, (CK_SESSION_HANDLE s, CK_SESSION_INFO_PTR i), (s, i))
PASS(Login, 1, (CK_SESSION_HANDLE s, CK_USER_TYPE u, CK_UTF8CHAR_PTR p, CK_ULONG n), (s, u, p, n))
PASS(Logout, 1, (CK_SESSION_HANDLE s), (s))
PASS(CopyObject, 1, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR c), (s, o, t, n, c))
PASS(DestroyObject, 1, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o), (s, o))
PASS(GetAttributeValue, 1, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, o, t, n))
PASS(FindObjectsInit, 1, (CK_SESSION_HANDLE s, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, t, n))
PASS(FindObjects, 1, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE_PTR o, CK_ULONG m, CK_ULONG_PTR n), (s, o, m, n))
PASS(FindObjectsFinal, 1, (CK_SESSION_HANDLE s), (s))
PASS(Encrypt, 1, (CK_SESSION_HANDLE s, CK_BYTE_PTR d, CK_ULONG n, CK_BYTE_PTR o, CK_ULONG_PTR m), (s, d, n, o, m))
PASS(Decrypt, 1, (CK_SESSION_HANDLE s, CK_BYTE_PTR d, CK_ULONG n, CK_BYTE_PTR o, CK_ULONG_PTR m), (s, d, n, o, m))
PASS(GenerateRandom, 1, (CK_SESSION_HANDLE s, CK_BYTE_PTR b, CK_ULONG n), (s, b, n))
PASS_MECHANISM(DecryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k), (s, m, k), m)
PASS_MECHANISM(GenerateKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR k), (s, m, t, n, k), m)
PASS_MECHANISM(GenerateKeyPair, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_ATTRIBUTE_PTR v, CK_ULONG w, CK_OBJECT_HANDLE_PTR p, CK_OBJECT_HANDLE_PTR q), (s, m, t, n, v, w, p, q), m)
PASS_MECHANISM(WrapKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE w, CK_OBJECT_HANDLE k, CK_BYTE_PTR b, CK_ULONG_PTR n), (s, m, w, k, b, n), m)
PASS_MECHANISM(UnwrapKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE w, CK_BYTE_PTR b, CK_ULONG n, CK_ATTRIBUTE_PTR t, CK_ULONG c, CK_OBJECT_HANDLE_PTR k), (s, m, w, b, n, t, c, k), m)
PASS_MECHANISM(DeriveKey, (CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k, CK_ATTRIBUTE_PTR t, CK_ULONG c, CK_OBJECT_HANDLE_PTR d), (s, m, k, t, c, d), m)

// same reports whether two objects have the same CKA_ID, as a key and its copies have.
static int same(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE a, CK_OBJECT_HANDLE b) {
	CK_BYTE x[64], y[64];
	CK_ATTRIBUTE of_a = {CKA_ID, x, sizeof x}, of_b = {CKA_ID, y, sizeof y};
	return real->C_GetAttributeValue(s, a, &of_a, 1) == CKR_OK && real->C_GetAttributeValue(s, b, &of_b, 1) == CKR_OK &&
	       of_a.ulValueLen == of_b.ulValueLen && memcmp(x, y, of_a.ulValueLen) == 0;
}

// other returns another private key of the same type, or the key itself if there is none.
static CK_OBJECT_HANDLE other(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key) {
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_KEY_TYPE type;
	CK_BYTE params[64];
	CK_ATTRIBUTE like[] = {
		{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_EC_PARAMS, params, sizeof params},
	};
	CK_OBJECT_HANDLE found[16];
	CK_ULONG n = 0;
	if (real->C_GetAttributeValue(s, key, &like[1], 2) != CKR_OK || real->C_FindObjectsInit(s, like, 3) != CKR_OK)
		return key;
	real->C_FindObjects(s, found, 16, &n);
	real->C_FindObjectsFinal(s);
	for (CK_ULONG i = 0; i < n; i++)
		if (!same(s, found[i], key))
			return found[i];
	return key;
}

static CK_RV my_SignInit(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k) {
	CK_RV rv = enter(F_SignInit, 1);
	if (rv == CKR_OK && hidden(m))
		rv = CKR_MECHANISM_INVALID;
	if (rv == CKR_OK && atomic_load(&control->swap) > 0 && atomic_fetch_sub(&control->swap, 1) == 1)
		k = other(s, k);
	if (rv == CKR_OK)
		CALL(rv, C_SignInit(s, m, k));
	return rv;
}

// own_nonce replaces zeros by a nonce, as AWS CloudHSM does.
static CK_RV own_nonce(CK_MECHANISM_PTR m) {
	if (m->mechanism != CKM_AES_GCM || !atomic_load(&control->nonces))
		return CKR_OK;
	CK_GCM_PARAMS_PTR p = m->pParameter;
	for (CK_ULONG i = 0; i < p->ulIvLen; i++)
		if (p->pIv[i] != 0)
			return CKR_MECHANISM_PARAM_INVALID;
	return getrandom(p->pIv, p->ulIvLen, 0) == (ssize_t)p->ulIvLen ? CKR_OK : CKR_DEVICE_ERROR;
}

static CK_RV my_EncryptInit(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k) {
	CK_RV rv = enter(F_EncryptInit, 1);
	if (rv == CKR_OK && hidden(m))
		rv = CKR_MECHANISM_INVALID;
	if (rv == CKR_OK)
		rv = own_nonce(m);
	if (rv == CKR_OK)
		CALL(rv, C_EncryptInit(s, m, k));
	return rv;
}

static CK_RV my_Finalize(CK_VOID_PTR a) {
	CK_RV rv = enter(F_Finalize, 0);
	if (rv == CKR_OK)
		CALL(rv, C_Finalize(a));
	if (rv == CKR_OK)
		atomic_store(&control->open, 0);
#ifdef __GLIBC__
	malloc_trim(0); // what the module freed should not count as the process's memory
#endif
	return rv;
}

static CK_RV my_GetMechanismInfo(CK_SLOT_ID s, CK_MECHANISM_TYPE m, CK_MECHANISM_INFO_PTR i) {
	CK_RV rv = enter(F_GetMechanismInfo, 0);
	long h = atomic_load(&control->mechanism);
	if (rv == CKR_OK && h != 0 && m == (CK_MECHANISM_TYPE)h)
		rv = CKR_MECHANISM_INVALID;
	return rv != CKR_OK ? rv : real->C_GetMechanismInfo(s, m, i);
}

static CK_RV my_OpenSession(CK_SLOT_ID s, CK_FLAGS f, CK_VOID_PTR a, CK_NOTIFY n, CK_SESSION_HANDLE_PTR h) {
	CK_RV rv = enter(F_OpenSession, 1);
	long most = atomic_load(&control->sessions);
	if (rv == CKR_OK && most > 0 && atomic_load(&control->open) >= most)
		rv = CKR_SESSION_COUNT;
	if (rv == CKR_OK)
		CALL(rv, C_OpenSession(s, f, a, n, h));
	if (rv == CKR_OK)
		atomic_fetch_add(&control->open, 1);
	return rv;
}

static CK_RV my_CloseSession(CK_SESSION_HANDLE h) {
	CK_RV rv = enter(F_CloseSession, 1);
	if (rv == CKR_OK)
		CALL(rv, C_CloseSession(h));
	if (rv == CKR_OK)
		atomic_fetch_sub(&control->open, 1);
	return rv;
}

// A signature is spoiled in its last byte. A call that only asks for its length is not counted.
static CK_RV my_Sign(CK_SESSION_HANDLE s, CK_BYTE_PTR d, CK_ULONG n, CK_BYTE_PTR o, CK_ULONG_PTR m) {
	CK_RV rv = enter(F_Sign, 1);
	if (rv == CKR_OK)
		CALL(rv, C_Sign(s, d, n, o, m));
	if (rv == CKR_OK && o != NULL && *m > 0 && atomic_load(&control->spoil) > 0 && atomic_fetch_sub(&control->spoil, 1) == 1)
		o[*m - 1] ^= 1;
	return rv;
}

// attach maps the control file and loads the real module, whose path is in a file beside this
// library.
static int attach(void) {
	Dl_info self;
	char name[4096], path[4096] = "";
	if (dladdr((void *)attach, &self) == 0)
		return 0;
	snprintf(name, sizeof name, "%s.control", self.dli_fname);
	int fd = open(name, O_RDWR);
	if (fd < 0)
		return 0;
	control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (control == MAP_FAILED)
		return 0;
	snprintf(name, sizeof name, "%s.real", self.dli_fname);
	FILE *f = fopen(name, "r");
	if (f == NULL)
		return 0;
	size_t n = fread(path, 1, sizeof path - 1, f);
	fclose(f);
	path[n] = 0;
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	CK_C_GetFunctionList get = lib == NULL ? NULL : (CK_C_GetFunctionList)dlsym(lib, "C_GetFunctionList");
	return get != NULL && get(&real) == CKR_OK;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out) {
	if (real == NULL && !attach())
		return CKR_GENERAL_ERROR;
	list = *real;
#define TAKE(name) list.C_##name = my_##name
	TAKE(Initialize); TAKE(Finalize); TAKE(GetInfo); TAKE(GetSlotList); TAKE(GetTokenInfo); TAKE(GetMechanismInfo);
	TAKE(OpenSession); TAKE(CloseSession); TAKE(GetSessionInfo); TAKE(Login); TAKE(Logout); TAKE(CopyObject); TAKE(DestroyObject);
	TAKE(GetAttributeValue); TAKE(FindObjectsInit); TAKE(FindObjects); TAKE(FindObjectsFinal); TAKE(EncryptInit);
	TAKE(Encrypt); TAKE(DecryptInit); TAKE(Decrypt); TAKE(SignInit); TAKE(Sign); TAKE(GenerateKey);
	TAKE(GenerateKeyPair); TAKE(WrapKey); TAKE(UnwrapKey); TAKE(DeriveKey); TAKE(GenerateRandom);
	*out = &list;
	return CKR_OK;
}
