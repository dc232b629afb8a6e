//go:build unix

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "onecall.h"

struct mechanism {
	ck_ulong type;
	void *parameter;
	ck_ulong parameter_len;
};

struct gcm_params { // CK_GCM_PARAMS
	ck_byte *iv;
	ck_ulong iv_len, iv_bits;
	ck_byte *aad;
	ck_ulong aad_len, tag_bits;
};

struct attribute { // CK_ATTRIBUTE
	ck_ulong type;
	void *value;
	ck_ulong len;
};

struct oaep_params { // CK_RSA_PKCS_OAEP_PARAMS
	ck_ulong hash, mgf, source;
	void *label;
	ck_ulong label_len;
};

typedef ck_rv init_fn(ck_ulong session, struct mechanism *m, ck_ulong key);
typedef ck_rv one_fn(ck_ulong session, ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong *out_len);
typedef ck_rv wrap_fn(ck_ulong session, struct mechanism *m, ck_ulong wrapping, ck_ulong key, ck_byte *out, ck_ulong *out_len);
typedef ck_rv attribute_fn(ck_ulong session, ck_ulong object, struct attribute *a, ck_ulong count);

struct ck_list *onecall_open(const char *path, const char **fault, int *several) {
	void *library = dlopen(path, RTLD_LAZY);
	if (library == NULL) {
		*fault = dlerror();
		return NULL;
	}
	ck_rv (*get)(struct ck_list **) = (ck_rv(*)(struct ck_list **))dlsym(library, "C_GetFunctionList");
	struct ck_list *l = NULL;
	if (get == NULL || get(&l) != 0 || l == NULL) {
		*fault = "it gives no list of functions";
		return NULL;
	}
	// p11-kit's client gives each caller other functions, with a state of their own.
	struct ck_list *again = NULL;
	*several = get(&again) == 0 && again != NULL && memcmp(l->fn, again->fn, sizeof l->fn) != 0;
	return l;
}

// run begins an operation and does all of it. out is large enough, so the length is not asked
// for.
static struct result run(struct ck_list *l, int begin, int whole, ck_ulong session, struct mechanism *m, ck_ulong key,
	ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len) {
	struct result r = {begin, 0, 0};
	r.rv = ((init_fn *)l->fn[begin])(session, m, key);
	if (r.rv != 0)
		return r;
	r.fn = whole;
	r.rv = ((one_fn *)l->fn[whole])(session, in, in_len, out, &out_len);
	r.n = out_len;
	return r;
}

struct result onecall_sign(struct ck_list *l, ck_ulong session, ck_ulong mechanism, ck_byte *parameter, ck_ulong parameter_len,
	ck_ulong key, ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len) {
	struct mechanism m = {mechanism, parameter_len == 0 ? NULL : parameter, parameter_len};
	return run(l, FN_SIGN_INIT, FN_SIGN, session, &m, key, in, in_len, out, out_len);
}

struct result onecall_gcm(struct ck_list *l, int decrypt, ck_ulong session, ck_ulong mechanism, ck_ulong key,
	ck_byte *iv, ck_ulong iv_len, ck_byte *aad, ck_ulong aad_len, ck_ulong tag_bits,
	ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len) {
	struct gcm_params p = {iv, iv_len, 8 * iv_len, aad_len == 0 ? NULL : aad, aad_len, tag_bits};
	struct mechanism m = {mechanism, &p, sizeof p};
	return decrypt ? run(l, FN_DECRYPT_INIT, FN_DECRYPT, session, &m, key, in, in_len, out, out_len)
	               : run(l, FN_ENCRYPT_INIT, FN_ENCRYPT, session, &m, key, in, in_len, out, out_len);
}

struct result onecall_oaep(struct ck_list *l, ck_ulong session, ck_ulong mechanism, ck_ulong key, ck_ulong hash, ck_ulong mgf, ck_ulong source,
	ck_byte *label, ck_ulong label_len, ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len) {
	struct oaep_params p = {hash, mgf, source, label_len == 0 ? NULL : label, label_len};
	struct mechanism m = {mechanism, &p, sizeof p};
	return run(l, FN_DECRYPT_INIT, FN_DECRYPT, session, &m, key, in, in_len, out, out_len);
}

struct result onecall_wrap(struct ck_list *l, ck_ulong session, ck_ulong mechanism, ck_ulong wrapping, ck_ulong key,
	ck_byte *out, ck_ulong out_len) {
	struct mechanism m = {mechanism, NULL, 0};
	struct result r = {FN_WRAP_KEY, 0, 0};
	r.rv = ((wrap_fn *)l->fn[FN_WRAP_KEY])(session, &m, wrapping, key, out, &out_len);
	r.n = out_len;
	return r;
}

struct result onecall_attribute(struct ck_list *l, ck_ulong session, ck_ulong object, ck_ulong type, ck_byte *out, ck_ulong out_len) {
	struct attribute a = {type, out, out_len};
	struct result r = {FN_GET_ATTRIBUTE_VALUE, 0, 0};
	r.rv = ((attribute_fn *)l->fn[FN_GET_ATTRIBUTE_VALUE])(session, object, &a, 1);
	r.n = a.len;
	return r;
}

struct result onecall_attributes(struct ck_list *l, ck_ulong session, ck_ulong object, ck_ulong *types, ck_ulong *lens, ck_ulong count, ck_byte *out) {
	struct attribute a[MAX_ATTRIBUTES];
	struct result r = {FN_GET_ATTRIBUTE_VALUE, 0, 0};
	for (ck_ulong i = 0; i < count; i++) {
		a[i] = (struct attribute){types[i], out, lens[i]};
		out += lens[i];
	}
	r.rv = ((attribute_fn *)l->fn[FN_GET_ATTRIBUTE_VALUE])(session, object, a, count);
	for (ck_ulong i = 0; i < count; i++)
		lens[i] = a[i].len;
	return r;
}
