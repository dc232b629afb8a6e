// The part of PKCS#11 (Cryptoki 2.40, Section 3.6 and the parameters of its mechanisms) that is
// needed here. The layout is the standard's for Unix: natural alignment.
#ifndef ONECALL_H
#define ONECALL_H

typedef unsigned long ck_ulong;
typedef ck_ulong ck_rv;
typedef unsigned char ck_byte;

// The functions of CK_FUNCTION_LIST that are called, by their position.
enum {
	FN_GET_ATTRIBUTE_VALUE = 24,
	FN_ENCRYPT_INIT = 29,
	FN_ENCRYPT = 30,
	FN_DECRYPT_INIT = 33,
	FN_DECRYPT = 34,
	FN_SIGN_INIT = 42,
	FN_SIGN = 43,
	FN_WRAP_KEY = 60,
	FN_COUNT = 68,
};

struct ck_list {
	ck_byte major, minor; // CK_VERSION, padded to the alignment of a pointer
	void *fn[FN_COUNT];
};

// What a call returns: the position of the function that failed, and its return value.
struct result {
	int fn;
	ck_rv rv;
	ck_ulong n; // bytes of output
};

// several is set if the library gives each caller functions with a state of their own.
struct ck_list *onecall_open(const char *path, const char **fault, int *several);

struct result onecall_sign(struct ck_list *l, ck_ulong session, ck_ulong mechanism, ck_byte *parameter, ck_ulong parameter_len,
	ck_ulong key, ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len);

// If the token makes its own nonce, it is written into iv.
struct result onecall_gcm(struct ck_list *l, int decrypt, ck_ulong session, ck_ulong mechanism, ck_ulong key,
	ck_byte *iv, ck_ulong iv_len, ck_byte *aad, ck_ulong aad_len, ck_ulong tag_bits,
	ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len);

struct result onecall_oaep(struct ck_list *l, ck_ulong session, ck_ulong mechanism, ck_ulong key, ck_ulong hash, ck_ulong mgf, ck_ulong source,
	ck_byte *label, ck_ulong label_len, ck_byte *in, ck_ulong in_len, ck_byte *out, ck_ulong out_len);

struct result onecall_wrap(struct ck_list *l, ck_ulong session, ck_ulong mechanism, ck_ulong wrapping, ck_ulong key,
	ck_byte *out, ck_ulong out_len);

struct result onecall_attribute(struct ck_list *l, ck_ulong session, ck_ulong object, ck_ulong type, ck_byte *out, ck_ulong out_len);

// Values of several attributes, each in its own part of out, of the length in lens, which is
// replaced by the length of the value.
struct result onecall_attributes(struct ck_list *l, ck_ulong session, ck_ulong object, ck_ulong *types, ck_ulong *lens, ck_ulong count, ck_byte *out);

enum { MAX_ATTRIBUTES = 32 };

#endif
