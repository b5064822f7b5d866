// The little of PKCS #11 that strongroom calls by itself: C_Login, and AES-GCM in one part.
#ifndef STRONGROOM_GCM_H
#define STRONGROOM_GCM_H

typedef struct strongroom_functions strongroom_functions; // CK_FUNCTION_LIST

// strongroom_load loads the PKCS #11 module at path and returns its function list, or NULL and a reason, which the caller
// frees. The module stays mapped until the process ends.
const strongroom_functions *strongroom_load(const char *path, char **why);

// strongroom_login is C_Login as the normal user (CKU_USER). The PIN is passed on where it lies, not copied.
unsigned long strongroom_login(const strongroom_functions *f, unsigned long session, unsigned char *pin, unsigned long pin_len);

// strongroom_gcm encrypts, or else decrypts, in one part with AES-GCM, a 96-bit IV and a 128-bit tag, and returns a CKR_
// value. *out_len is the room at out, and then what was written there. *began is 1 if the first of the two calls succeeded, so
// that the value returned is that of the second. Nothing else is copied here and no pointer is kept.
//
// iv is 12 bytes, which the module may change, or NULL, with a length of 0 in the parameters. *moved is 1 if the module led the parameters to an IV of
// 12 bytes in memory of its own: it is copied to iv then; and -1 if it led them to something else.
unsigned long strongroom_gcm(const strongroom_functions *f, int encrypt, unsigned long session, unsigned long key,
                             unsigned char *iv, unsigned char *aad, unsigned long aad_len,
                             unsigned char *in, unsigned long in_len,
                             unsigned char *out, unsigned long *out_len, int *began, int *moved);

#endif
