// What the parts of the fault module share: a call, a session, and the real module.
#ifndef STRONGROOM_FAULT_H
#define STRONGROOM_FAULT_H

#include <pthread.h>

#include "script.h"

// A session has a number of its own, so that it can be lost, and numbers be used again, whatever the real module does.
//
// Structures are never freed, only used again, so that a program that closes a session while it uses it meets the faults of the real
// module and none of this one.
struct session {
	struct session *next; // in its bucket, or in the list of those to be used again
	CK_SESSION_HANDLE number, real;
	CK_SLOT_ID slot; // of the real module
	int place;       // in the file of sessions that processes share, or -1
	uint64_t used;   // when, in milliseconds

	// The encryption in progress, between C_EncryptInit and its end.
	int iv_mode;              // one of enum iv, or IV_CALLER
	CK_BYTE iv[12];           // made here
	CK_BYTE returned[12];     // memory of the device's own, which the application is led to
	CK_BYTE *iv_to;           // where the application wants to see it, or NULL
	CK_GCM_PARAMS *params_to; // or which parameters are to point to it
	CK_ULONG tag_length;
};

struct call {
	struct settings set; // as they were when it began
	struct decision decision;
	CK_RV rv;
	bool locked;
	struct session *session; // the one it names
};

extern CK_FUNCTION_LIST *real;

// mutex guards the script, the sessions and what is in force since the last restart. It is held for moments, and never during a call of the
// real module, but for a restart.
extern pthread_mutex_t mutex;

// in_force is what the application lives with since C_Initialize or the last restart. It changes under the mutex and under the lock that
// keeps calls of the real module away.
struct in_force {
	bool initialised;
	CK_ULONG generation;
	CK_SLOT_ID slot_offset;
	bool stuck; // until C_Initialize, with this answer
	CK_RV stuck_code;
};
extern struct in_force in_force;

// sessions.c

// session finds a session and replaces its number by that of the real module. If it is false, there is none, and that is the call's answer.
bool session(struct call *c, CK_SESSION_HANDLE *s);

// session_drop closes a call's session, as a device does that thinks it was idle for too long, and makes that the call's answer.
void session_drop(struct call *c, CK_RV rv);

// sessions_lost forgets all sessions; with reuse, the numbers of the next begin again. The caller has the mutex.
void sessions_lost(bool reuse);

// session_slots lists the slots that have sessions, max at most. The caller has the mutex.
int session_slots(CK_SLOT_ID *slots, int max);

// mechanism is whether the script leaves a mechanism there. If it is false, that is the call's answer.
bool mechanism(struct call *c, CK_ULONG type);

CK_RV own_C_GetSlotList(struct call *c, CK_BYTE present, CK_SLOT_ID *list, CK_ULONG *n);
CK_RV own_C_GetTokenInfo(struct call *c, CK_SLOT_ID slot, CK_TOKEN_INFO *info);
CK_RV own_C_GetMechanismList(struct call *c, CK_SLOT_ID slot, CK_ULONG *list, CK_ULONG *n);
CK_RV own_C_OpenSession(struct call *c, CK_SLOT_ID slot, CK_FLAGS flags, void *app, void *notify, CK_SESSION_HANDLE *s);
CK_RV own_C_CloseSession(struct call *c, CK_SESSION_HANDLE s);
CK_RV own_C_CloseAllSessions(struct call *c, CK_SLOT_ID slot);
CK_RV own_C_GetSessionInfo(struct call *c, CK_SESSION_HANDLE s, CK_SESSION_INFO *info);
CK_RV own_C_WaitForSlotEvent(struct call *c, CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved);

// objects.c: handles of objects. The callers hold the lock that keeps restarts away.

CK_OBJECT_HANDLE object_in(struct call *c, CK_OBJECT_HANDLE seen);    // the real one, or one that no object has
void objects_out(struct call *c, CK_OBJECT_HANDLE *list, CK_ULONG n); // the ones that the application sees, in place
void object_gone(CK_OBJECT_HANDLE handle);                            // the real one was destroyed
void objects_stale(void);                                             // the real module may have given new handles

// objects_restart is called when the device restarts, while the old handles still work, and with the mutex.
void objects_restart(const struct settings *set);

// objects_begin is called when a restart, or C_Initialize, is done.
void objects_begin(const struct settings *set, CK_ULONG generation);

// objects_fit is whether a token has room for the objects of these templates. If it is false, that is the call's answer.
bool objects_fit(struct call *c, const CK_ATTRIBUTE *t1, CK_ULONG n1, const CK_ATTRIBUTE *t2, CK_ULONG n2);

CK_RV own_C_CreateObject(struct call *c, CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o);
CK_RV own_C_CopyObject(struct call *c, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o);
CK_RV own_C_DestroyObject(struct call *c, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o);
CK_RV own_C_FindObjects(struct call *c, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *list, CK_ULONG max, CK_ULONG *n);
CK_RV own_C_GenerateKey(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o);
CK_RV own_C_GenerateKeyPair(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t1, CK_ULONG n1, CK_ATTRIBUTE *t2, CK_ULONG n2,
                            CK_OBJECT_HANDLE *o1, CK_OBJECT_HANDLE *o2);
CK_RV own_C_UnwrapKey(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE by, CK_BYTE *in, CK_ULONG inlen, CK_ATTRIBUTE *t,
                      CK_ULONG n, CK_OBJECT_HANDLE *o);
CK_RV own_C_DeriveKey(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o);

// gcm.c: who makes the IV, and limits of the data.

CK_RV own_C_EncryptInit(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key);
CK_RV own_C_Encrypt(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen);
CK_RV own_C_EncryptUpdate(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen);
CK_RV own_C_EncryptFinal(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen);
CK_RV own_C_DecryptInit(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key);
CK_RV own_C_Decrypt(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen);
CK_RV own_C_DecryptUpdate(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG inlen, CK_BYTE *out, CK_ULONG *outlen);
CK_RV own_C_DecryptFinal(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *outlen);

// pin.c: a token that counts wrong PINs.

CK_RV own_C_Login(struct call *c, CK_SESSION_HANDLE s, CK_ULONG user, CK_BYTE *pin, CK_ULONG len);
CK_RV own_C_InitPIN(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *pin, CK_ULONG len);
CK_RV own_C_SetPIN(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *old, CK_ULONG oldlen, CK_BYTE *new, CK_ULONG newlen);
CK_FLAGS pin_flags(struct call *c, CK_FLAGS flags);

#endif
