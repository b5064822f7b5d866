// The part of PKCS #11 that the fault module has to know: after PKCS #11 Cryptographic Token Interface Base Specification v2.40
// (section 3 for the types, section 5 for the functions, and section 4.2 for the order of CK_FUNCTION_LIST) and Current Mechanisms
// Specification v2.40 plus errata 01 (section 2.12.2, CK_GCM_PARAMS). Structures are aligned as the compiler does by itself, as on all
// Unix systems (Usage Guide, section 2.1). What is only passed on is void here.
#ifndef STRONGROOM_FAULT_PKCS11_H
#define STRONGROOM_FAULT_PKCS11_H

typedef unsigned char CK_BYTE;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_FLAGS;

// All three are CK_ULONG. The names say what a parameter is, and which of them the module translates.
typedef CK_ULONG CK_SLOT_ID;
typedef CK_ULONG CK_SESSION_HANDLE;
typedef CK_ULONG CK_OBJECT_HANDLE;

typedef struct {
	CK_BYTE major;
	CK_BYTE minor;
} CK_VERSION;

typedef struct {
	CK_ULONG type;
	void *pValue;
	CK_ULONG ulValueLen;
} CK_ATTRIBUTE;

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

typedef struct {
	CK_BYTE label[32];
	CK_BYTE manufacturerID[32];
	CK_BYTE model[16];
	CK_BYTE serialNumber[16];
	CK_FLAGS flags;
	CK_ULONG ulMaxSessionCount;
	CK_ULONG ulSessionCount;
	CK_ULONG ulMaxRwSessionCount;
	CK_ULONG ulRwSessionCount;
	CK_ULONG ulMaxPinLen;
	CK_ULONG ulMinPinLen;
	CK_ULONG ulTotalPublicMemory;
	CK_ULONG ulFreePublicMemory;
	CK_ULONG ulTotalPrivateMemory;
	CK_ULONG ulFreePrivateMemory;
	CK_VERSION hardwareVersion;
	CK_VERSION firmwareVersion;
	CK_BYTE utcTime[16];
} CK_TOKEN_INFO;

typedef struct {
	CK_SLOT_ID slotID;
	CK_ULONG state;
	CK_FLAGS flags;
	CK_ULONG ulDeviceError;
} CK_SESSION_INFO;

enum {
	CKF_SERIAL_SESSION = 0x4,

	CKF_USER_PIN_COUNT_LOW = 0x10000,
	CKF_USER_PIN_FINAL_TRY = 0x20000,
	CKF_USER_PIN_LOCKED = 0x40000,

	CKU_USER = 1,

	CKA_CLASS = 0x0,
	CKA_TOKEN = 0x1,
	CKA_LABEL = 0x3,
	CKA_ID = 0x102,
};

// Every function that is in CK_FUNCTION_LIST, in its order, without C_GetFunctionList, which is not called by way of it. The columns:
//
//	how       PASS: the function of the real module is called; OWN: own_NAME is, whose first argument is the call
//	name
//	params    as specified
//	checks    what is seen to before, and translated: S a session, L a slot, O an object, M whether the mechanism is there
//	args      for the function of the first column
#define FUNCTIONS_UP_TO_GET_INFO(F) \
	F(OWN, C_Initialize, (void *args), , (&c, args)) \
	F(OWN, C_Finalize, (void *reserved), , (&c, reserved)) \
	F(PASS, C_GetInfo, (void *info), , (info))

#define FUNCTIONS_FROM_GET_SLOT_LIST(F) \
	F(OWN, C_GetSlotList, (CK_BYTE present, CK_SLOT_ID *list, CK_ULONG *n), , (&c, present, list, n)) \
	F(PASS, C_GetSlotInfo, (CK_SLOT_ID slot, void *info), L(slot), (slot, info)) \
	F(OWN, C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO *info), L(slot), (&c, slot, info)) \
	F(OWN, C_GetMechanismList, (CK_SLOT_ID slot, CK_ULONG *list, CK_ULONG *n), L(slot), (&c, slot, list, n)) \
	F(PASS, C_GetMechanismInfo, (CK_SLOT_ID slot, CK_ULONG type, void *info), L(slot) T(type), (slot, type, info)) \
	F(PASS, C_InitToken, (CK_SLOT_ID slot, CK_BYTE *pin, CK_ULONG len, CK_BYTE *label), L(slot), (slot, pin, len, label)) \
	F(OWN, C_InitPIN, (CK_SESSION_HANDLE s, CK_BYTE *pin, CK_ULONG len), S(s), (&c, s, pin, len)) \
	F(OWN, C_SetPIN, (CK_SESSION_HANDLE s, CK_BYTE *old, CK_ULONG oldlen, CK_BYTE *new, CK_ULONG newlen), S(s), (&c, s, old, oldlen, new, newlen)) \
	F(OWN, C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, void *app, void *notify, CK_SESSION_HANDLE *s), L(slot), (&c, slot, flags, app, notify, s)) \
	F(OWN, C_CloseSession, (CK_SESSION_HANDLE s), S(s), (&c, s)) \
	F(OWN, C_CloseAllSessions, (CK_SLOT_ID slot), L(slot), (&c, slot)) \
	F(OWN, C_GetSessionInfo, (CK_SESSION_HANDLE s, CK_SESSION_INFO *info), S(s), (&c, s, info)) \
	F(PASS, C_GetOperationState, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, out, outlen)) \
	F(PASS, C_SetOperationState, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_OBJECT_HANDLE k1, CK_OBJECT_HANDLE k2), S(s) O(k1) O(k2), (s, in, inlen, k1, k2)) \
	F(OWN, C_Login, (CK_SESSION_HANDLE s, CK_ULONG user, CK_BYTE *pin, CK_ULONG len), S(s), (&c, s, user, pin, len)) \
	F(PASS, C_Logout, (CK_SESSION_HANDLE s), S(s), (s)) \
	F(OWN, C_CreateObject, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o), S(s) N(t, n), (&c, s, t, n, o)) \
	F(OWN, C_CopyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o), S(s) O(from) N(t, n), (&c, s, from, t, n, o)) \
	F(OWN, C_DestroyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o), S(s) O(o), (&c, s, o)) \
	F(PASS, C_GetObjectSize, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ULONG *n), S(s) O(o), (s, o, n)) \
	F(PASS, C_GetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n), S(s) O(o), (s, o, t, n)) \
	F(PASS, C_SetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n), S(s) O(o), (s, o, t, n)) \
	F(PASS, C_FindObjectsInit, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n), S(s), (s, t, n)) \
	F(OWN, C_FindObjects, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *list, CK_ULONG max, CK_ULONG *n), S(s), (&c, s, list, max, n)) \
	F(PASS, C_FindObjectsFinal, (CK_SESSION_HANDLE s), S(s), (s)) \
	F(OWN, C_EncryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), S(s) M(m) O(key), (&c, s, m, key)) \
	F(OWN, C_Encrypt, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (&c, s, in, inlen, out, outlen)) \
	F(OWN, C_EncryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (&c, s, in, inlen, out, outlen)) \
	F(OWN, C_EncryptFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen), S(s), (&c, s, out, outlen)) \
	F(OWN, C_DecryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), S(s) M(m) O(key), (&c, s, m, key)) \
	F(OWN, C_Decrypt, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (&c, s, in, inlen, out, outlen)) \
	F(OWN, C_DecryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (&c, s, in, inlen, out, outlen)) \
	F(OWN, C_DecryptFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen), S(s), (&c, s, out, outlen)) \
	F(PASS, C_DigestInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m), S(s) M(m), (s, m)) \
	F(PASS, C_Digest, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(PASS, C_DigestUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen), S(s), (s, in, inlen)) \
	F(PASS, C_DigestKey, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key), S(s) O(key), (s, key)) \
	F(PASS, C_DigestFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, out, outlen)) \
	F(PASS, C_SignInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), S(s) M(m) O(key), (s, m, key)) \
	F(PASS, C_Sign, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(PASS, C_SignUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen), S(s), (s, in, inlen)) \
	F(PASS, C_SignFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, out, outlen)) \
	F(PASS, C_SignRecoverInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), S(s) M(m) O(key), (s, m, key)) \
	F(PASS, C_SignRecover, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(PASS, C_VerifyInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), S(s) M(m) O(key), (s, m, key)) \
	F(PASS, C_Verify, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *sig, CK_ULONG siglen), S(s), (s, in, inlen, sig, siglen)) \
	F(PASS, C_VerifyUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen), S(s), (s, in, inlen)) \
	F(PASS, C_VerifyFinal, (CK_SESSION_HANDLE s, CK_BYTE *sig, CK_ULONG siglen), S(s), (s, sig, siglen)) \
	F(PASS, C_VerifyRecoverInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), S(s) M(m) O(key), (s, m, key)) \
	F(PASS, C_VerifyRecover, (CK_SESSION_HANDLE s, CK_BYTE *sig, CK_ULONG siglen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, sig, siglen, out, outlen)) \
	F(PASS, C_DigestEncryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(PASS, C_DecryptDigestUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(PASS, C_SignEncryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(PASS, C_DecryptVerifyUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen), S(s), (s, in, inlen, out, outlen)) \
	F(OWN, C_GenerateKey, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o), S(s) M(m) N(t, n), (&c, s, m, t, n, o)) \
	F(OWN, C_GenerateKeyPair, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t1, CK_ULONG n1, CK_ATTRIBUTE *t2, CK_ULONG n2, CK_OBJECT_HANDLE *o1, CK_OBJECT_HANDLE *o2), S(s) M(m) NN(t1, n1, t2, n2), (&c, s, m, t1, n1, t2, n2, o1, o2)) \
	F(PASS, C_WrapKey, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE by, CK_OBJECT_HANDLE key, CK_BYTE *out, CK_ULONG *outlen), S(s) M(m) O(by) O(key), (s, m, by, key, out, outlen)) \
	F(OWN, C_UnwrapKey, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE by, CK_BYTE *in, CK_ULONG inlen, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o), S(s) M(m) O(by) N(t, n), (&c, s, m, by, in, inlen, t, n, o)) \
	F(OWN, C_DeriveKey, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o), S(s) M(m) O(from) N(t, n), (&c, s, m, from, t, n, o)) \
	F(PASS, C_SeedRandom, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen), S(s), (s, in, inlen)) \
	F(PASS, C_GenerateRandom, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG outlen), S(s), (s, out, outlen)) \
	F(PASS, C_GetFunctionStatus, (CK_SESSION_HANDLE s), S(s), (s)) \
	F(PASS, C_CancelFunction, (CK_SESSION_HANDLE s), S(s), (s)) \
	F(OWN, C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved), , (&c, flags, slot, reserved))

#define FUNCTIONS(F) FUNCTIONS_UP_TO_GET_INFO(F) FUNCTIONS_FROM_GET_SLOT_LIST(F)

#define FIELD(how, name, params, checks, args) CK_RV(*name) params;

typedef struct CK_FUNCTION_LIST CK_FUNCTION_LIST;

struct CK_FUNCTION_LIST {
	CK_VERSION version;
	FUNCTIONS_UP_TO_GET_INFO(FIELD)
	CK_RV (*C_GetFunctionList)(CK_FUNCTION_LIST **list);
	FUNCTIONS_FROM_GET_SLOT_LIST(FIELD)
};

#undef FIELD

_Static_assert(sizeof(CK_FUNCTION_LIST) == 69 * sizeof(void *), "CK_FUNCTION_LIST: the version, and 68 functions");

// The number of a function, as an index of tables of our own.
#define NUMBER(how, name, params, checks, args) F_##name,
enum function { FUNCTIONS(NUMBER) F_COUNT };
#undef NUMBER

#endif
