#include "gcm.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// Declarations after PKCS #11 Cryptographic Token Interface Base Specification v2.40 (section 3, and section 4.2 for the order of
// CK_FUNCTION_LIST) and Current Mechanisms Specification v2.40 plus errata 01 (section 2.12.2, CK_GCM_PARAMS). On Unix structures are
// aligned as the compiler does by itself (Usage Guide, section 2.1: 1-byte packing is for Windows alone).

typedef unsigned char CK_BYTE;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;

typedef struct {
	CK_BYTE major;
	CK_BYTE minor;
} CK_VERSION;

typedef struct {
	CK_ULONG mechanism;
	void *pParameter;
	CK_ULONG ulParameterLen;
} CK_MECHANISM;

typedef struct {
	CK_BYTE *pIv;
	CK_ULONG ulIvLen;
	CK_ULONG ulIvBits;
	CK_BYTE *pAAD;
	CK_ULONG ulAADLen;
	CK_ULONG ulTagBits;
} CK_GCM_PARAMS;

enum {
	CKR_OK = 0,
	CKU_USER = 1,
	CKM_AES_GCM = 0x1087,
};

typedef CK_RV unused_function(void);
typedef CK_RV login_function(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG pin_len);
typedef CK_RV init_function(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key);
typedef CK_RV part_function(CK_ULONG session, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len);

// The head of CK_FUNCTION_LIST. What follows C_Decrypt is not declared because it is not used.
struct strongroom_functions {
	CK_VERSION version;
	unused_function *C_Initialize;
	unused_function *C_Finalize;
	unused_function *C_GetInfo;
	unused_function *C_GetFunctionList;
	unused_function *C_GetSlotList;
	unused_function *C_GetSlotInfo;
	unused_function *C_GetTokenInfo;
	unused_function *C_GetMechanismList;
	unused_function *C_GetMechanismInfo;
	unused_function *C_InitToken;
	unused_function *C_InitPIN;
	unused_function *C_SetPIN;
	unused_function *C_OpenSession;
	unused_function *C_CloseSession;
	unused_function *C_CloseAllSessions;
	unused_function *C_GetSessionInfo;
	unused_function *C_GetOperationState;
	unused_function *C_SetOperationState;
	login_function *C_Login;
	unused_function *C_Logout;
	unused_function *C_CreateObject;
	unused_function *C_CopyObject;
	unused_function *C_DestroyObject;
	unused_function *C_GetObjectSize;
	unused_function *C_GetAttributeValue;
	unused_function *C_SetAttributeValue;
	unused_function *C_FindObjectsInit;
	unused_function *C_FindObjects;
	unused_function *C_FindObjectsFinal;
	init_function *C_EncryptInit;
	part_function *C_Encrypt;
	unused_function *C_EncryptUpdate;
	unused_function *C_EncryptFinal;
	init_function *C_DecryptInit;
	part_function *C_Decrypt;
};

_Static_assert(offsetof(struct strongroom_functions, C_Login) == 19 * sizeof(void *), "CK_FUNCTION_LIST up to C_Login");
_Static_assert(offsetof(struct strongroom_functions, C_Decrypt) == 35 * sizeof(void *), "CK_FUNCTION_LIST up to C_Decrypt");

const strongroom_functions *strongroom_load(const char *path, char **why)
{
	// RTLD_NODELETE: a module may have left threads, thread-local destructors or exit handlers behind, so it must not be
	// unmapped when the other users of the module close theirs.
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (module == NULL) {
		const char *e = dlerror();
		*why = strdup(e != NULL ? e : "dlopen failed");
		return NULL;
	}
	CK_RV (*get)(const strongroom_functions **);
	*(void **)&get = dlsym(module, "C_GetFunctionList");
	if (get == NULL) {
		*why = strdup("it has no C_GetFunctionList: it is not a PKCS #11 module");
		return NULL;
	}
	const strongroom_functions *f = NULL;
	if (get(&f) != CKR_OK || f == NULL) {
		*why = strdup("C_GetFunctionList failed");
		return NULL;
	}
	return f;
}

unsigned long strongroom_login(const strongroom_functions *f, unsigned long session, unsigned char *pin, unsigned long pin_len)
{
	return f->C_Login(session, CKU_USER, pin, pin_len);
}

unsigned long strongroom_gcm(const strongroom_functions *f, int encrypt, unsigned long session, unsigned long key,
                             unsigned char *iv, unsigned char *aad, unsigned long aad_len,
                             unsigned char *in, unsigned long in_len,
                             unsigned char *out, unsigned long *out_len, int *began, int *moved)
{
	CK_GCM_PARAMS params = {
		.pIv = iv,
		.ulIvLen = iv != NULL ? 12 : 0,
		.ulIvBits = 96, // SoftHSM ignores it, CloudHSM and Luna do not. To Luna it is the length of an IV that it makes itself
		.pAAD = aad,
		.ulAADLen = aad_len,
		.ulTagBits = 128,
	};
	CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};

	*began = *moved = 0;
	CK_RV rv = (encrypt ? f->C_EncryptInit : f->C_DecryptInit)(session, &mechanism, key);
	if (rv != CKR_OK)
		return rv;
	*began = 1;
	rv = (encrypt ? f->C_Encrypt : f->C_Decrypt)(session, in, in_len, out, out_len);
	if (rv == CKR_OK && encrypt && params.pIv == iv && iv != NULL && params.ulIvLen != 12)
		*moved = -1;
	if (rv == CKR_OK && encrypt && params.pIv != iv) {
		*moved = -1;
		if (params.pIv != NULL && params.ulIvLen == 12 && iv != NULL) {
			memcpy(iv, params.pIv, 12);
			*moved = 1;
		}
	}
	return rv;
}
