// AES-GCM as devices have it that make the IV themselves, in the three ways that are known, and devices that take little data.
#include "fault.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define IV_LEN 12

static bool random_bytes(CK_BYTE *b, size_t n)
{
	while (n > 0) {
		ssize_t got = getrandom(b, n, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		b += got;
		n -= (size_t)got;
	}
	return true;
}

// gcm returns the parameters of a mechanism, or NULL if it is another one or they are of another size.
static CK_GCM_PARAMS *gcm(const CK_MECHANISM *m)
{
	if (m == NULL || m->mechanism != CKM_AES_GCM || m->pParameter == NULL || m->ulParameterLen != sizeof(CK_GCM_PARAMS))
		return NULL;
	return m->pParameter;
}

// iv_wanted is whether the parameters are as a device wants them that makes the IV itself.
static bool iv_wanted(int mode, const CK_GCM_PARAMS *p)
{
	static const CK_BYTE zero[IV_LEN];
	switch (mode) {
	case IV_ZEROED:
		return p->pIv != NULL && p->ulIvLen == IV_LEN && memcmp(p->pIv, zero, IV_LEN) == 0;
	case IV_APPENDED:
		return p->pIv == NULL && p->ulIvLen == 0;
	default: // IV_RETURNED
		return p->ulIvLen == IV_LEN;
	}
}

// tell writes the IV where the application looks for it.
static void tell(struct session *s)
{
	if (s->iv_to != NULL)
		memcpy(s->iv_to, s->iv, IV_LEN);
	if (s->params_to != NULL) {
		memcpy(s->returned, s->iv, IV_LEN);
		s->params_to->pIv = s->returned;
		s->params_to->ulIvBits = 8 * IV_LEN;
	}
	s->iv_to = NULL;
	s->params_to = NULL;
}

CK_RV own_C_EncryptInit(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
	struct session *session = c->session;
	CK_GCM_PARAMS *p = gcm(m);
	if (p != NULL && p->ulAADLen > c->set.aad)
		return CKR_MECHANISM_PARAM_INVALID;
	bool own_iv = c->set.iv != IV_CALLER && m != NULL && m->mechanism == CKM_AES_GCM;
	if (!own_iv) {
		CK_RV rv = real->C_EncryptInit(s, m, key);
		if (rv == CKR_OK)
			session->iv_mode = IV_CALLER;
		return rv;
	}
	if (p == NULL || !iv_wanted(c->set.iv, p))
		return CKR_MECHANISM_PARAM_INVALID;
	CK_BYTE iv[IV_LEN];
	if (!random_bytes(iv, sizeof iv))
		return CKR_DEVICE_ERROR;
	CK_GCM_PARAMS params = *p;
	params.pIv = iv;
	params.ulIvLen = IV_LEN;
	params.ulIvBits = 8 * IV_LEN;
	CK_MECHANISM mechanism = {m->mechanism, &params, sizeof params};
	CK_RV rv = real->C_EncryptInit(s, &mechanism, key);
	if (rv != CKR_OK)
		return rv;
	session->iv_mode = (int)c->set.iv;
	memcpy(session->iv, iv, IV_LEN);
	session->tag_length = (p->ulTagBits + 7) / 8;
	session->iv_to = c->set.iv == IV_APPENDED ? NULL : p->pIv;
	session->params_to = c->set.iv == IV_RETURNED && p->pIv == NULL ? p : NULL;
	if (!c->set.iv_late)
		tell(session);
	return CKR_OK;
}

CK_RV own_C_Encrypt(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen)
{
	struct session *session = c->session;
	if (inlen > c->set.data)
		return CKR_DATA_LEN_RANGE;
	if (session->iv_mode != IV_APPENDED) {
		CK_RV rv = real->C_Encrypt(s, in, inlen, out, outlen);
		if (rv == CKR_OK)
			tell(session);
		return rv;
	}
	if (outlen == NULL)
		return real->C_Encrypt(s, in, inlen, out, outlen);
	CK_ULONG needed = inlen + session->tag_length + IV_LEN;
	if (out == NULL || *outlen < needed) {
		*outlen = needed;
		return out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
	}
	CK_ULONG n = *outlen - IV_LEN;
	CK_RV rv = real->C_Encrypt(s, in, inlen, out, &n);
	if (rv == CKR_OK)
		memcpy(out + n, session->iv, IV_LEN);
	*outlen = n + IV_LEN;
	return rv;
}

CK_RV own_C_EncryptUpdate(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen)
{
	if (inlen > c->set.data)
		return CKR_DATA_LEN_RANGE;
	CK_RV rv = real->C_EncryptUpdate(s, in, inlen, out, outlen);
	if (rv == CKR_OK && c->session->iv_mode != IV_APPENDED)
		tell(c->session);
	return rv;
}

CK_RV own_C_EncryptFinal(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen)
{
	struct session *session = c->session;
	if (session->iv_mode != IV_APPENDED || outlen == NULL) {
		CK_RV rv = real->C_EncryptFinal(s, out, outlen);
		if (rv == CKR_OK && session->iv_mode != IV_APPENDED)
			tell(session);
		return rv;
	}
	CK_ULONG room = out == NULL ? 0 : *outlen, n = 0;
	CK_RV rv = real->C_EncryptFinal(s, NULL, &n); // how much is needed; nothing ends with that
	if (rv != CKR_OK)
		return rv;
	*outlen = n + IV_LEN;
	if (out == NULL)
		return CKR_OK;
	if (room < n + IV_LEN)
		return CKR_BUFFER_TOO_SMALL;
	n = room - IV_LEN;
	rv = real->C_EncryptFinal(s, out, &n);
	if (rv == CKR_OK)
		memcpy(out + n, session->iv, IV_LEN);
	*outlen = n + IV_LEN;
	return rv;
}

CK_RV own_C_DecryptInit(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
	CK_GCM_PARAMS *p = gcm(m);
	if (p != NULL && p->ulAADLen > c->set.aad)
		return CKR_MECHANISM_PARAM_INVALID;
	return real->C_DecryptInit(s, m, key);
}

// bad_tag replaces an answer that may mean that the data is not what was encrypted. An answer that is about the call stays.
static CK_RV bad_tag(const struct call *c, CK_RV rv)
{
	if (!c->set.has_bad_tag)
		return rv;
	switch (rv) {
	case CKR_OK:
	case CKR_ARGUMENTS_BAD:
	case CKR_BUFFER_TOO_SMALL:
	case CKR_CRYPTOKI_NOT_INITIALIZED:
	case CKR_OPERATION_NOT_INITIALIZED:
	case CKR_SESSION_CLOSED:
	case CKR_SESSION_HANDLE_INVALID:
	case CKR_USER_NOT_LOGGED_IN:
		return rv;
	}
	return c->set.bad_tag;
}

CK_RV own_C_Decrypt(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen)
{
	if (inlen > c->set.data)
		return CKR_ENCRYPTED_DATA_LEN_RANGE;
	return bad_tag(c, real->C_Decrypt(s, in, inlen, out, outlen));
}

CK_RV own_C_DecryptUpdate(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen)
{
	if (inlen > c->set.data)
		return CKR_ENCRYPTED_DATA_LEN_RANGE;
	return real->C_DecryptUpdate(s, in, inlen, out, outlen);
}

CK_RV own_C_DecryptFinal(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen)
{
	return bad_tag(c, real->C_DecryptFinal(s, out, outlen));
}
