// A program that calls a PKCS #11 module without a library between: what Go's libraries cannot ask, and how long a call takes.
//
//	direct COMMAND MODULE PIN
//
// It uses the first slot with a token that takes the PIN, and a key of the session. It ends with 0 if all is as it should be.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "names.h"
#include "pkcs11.h"

static CK_FUNCTION_LIST *p11;
static CK_SESSION_HANDLE s;
static CK_OBJECT_HANDLE key;

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			printf("line %d: not so: %s\n", __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

#define OK(call) \
	do { \
		CK_RV rv_ = (call); \
		if (rv_ != CKR_OK) { \
			printf("line %d: %s: 0x%lx\n", __LINE__, #call, rv_); \
			exit(1); \
		} \
	} while (0)

static CK_BYTE aad[] = "associated data", text[] = "plaintext";

static CK_GCM_PARAMS params(CK_BYTE *iv, CK_ULONG n)
{
	return (CK_GCM_PARAMS){.pIv = iv, .ulIvLen = n, .ulIvBits = 8 * n, .pAAD = aad, .ulAADLen = sizeof aad, .ulTagBits = 128};
}

static CK_RV init(CK_RV (*f)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE), CK_GCM_PARAMS *p)
{
	CK_MECHANISM m = {CKM_AES_GCM, p, sizeof *p};
	return f(s, &m, key);
}

static void opens(CK_BYTE *iv, CK_BYTE *sealed, CK_ULONG n)
{
	CK_BYTE out[256];
	CK_ULONG outlen = sizeof out;
	CK_GCM_PARAMS p = params(iv, 12);
	OK(init(p11->C_DecryptInit, &p));
	OK(p11->C_Decrypt(s, sealed, n, out, &outlen));
	CHECK(outlen == sizeof text && memcmp(out, text, outlen) == 0);
}

// returned: with a NULL pIv, the parameters come back with memory of the device's own.
static void returned(void)
{
	CK_BYTE out[256], first[12];
	for (int i = 0; i < 2; i++) {
		CK_ULONG outlen = sizeof out;
		CK_GCM_PARAMS p = params(NULL, 12);
		p.ulIvBits = 0;
		OK(init(p11->C_EncryptInit, &p));
		OK(p11->C_Encrypt(s, text, sizeof text, out, &outlen));
		CHECK(p.pIv != NULL && p.ulIvLen == 12 && p.ulIvBits == 96);
		CHECK(i == 0 || memcmp(first, p.pIv, 12) != 0);
		memcpy(first, p.pIv, 12);
		opens(p.pIv, out, outlen);
	}
	CK_GCM_PARAMS p = params(NULL, 0);
	CHECK(init(p11->C_EncryptInit, &p) == CKR_MECHANISM_PARAM_INVALID);
}

// appended: a buffer without room for the IV is too small, and the operation goes on.
static void appended(void)
{
	CK_BYTE out[256];
	CK_ULONG needed = sizeof text + 16 + 12, outlen = needed - 1;
	CK_GCM_PARAMS p = params(NULL, 0);
	OK(init(p11->C_EncryptInit, &p));
	CHECK(p11->C_Encrypt(s, text, sizeof text, out, &outlen) == CKR_BUFFER_TOO_SMALL && outlen == needed);
	outlen = 0;
	OK(p11->C_Encrypt(s, text, sizeof text, NULL, &outlen));
	CHECK(outlen == needed);
	OK(p11->C_Encrypt(s, text, sizeof text, out, &outlen));
	CHECK(outlen == needed);
	opens(out + outlen - 12, out, outlen - 12);

	OK(init(p11->C_EncryptInit, &p));
	CK_ULONG n = sizeof out, rest;
	OK(p11->C_EncryptUpdate(s, text, sizeof text, out, &n));
	rest = 0;
	OK(p11->C_EncryptFinal(s, NULL, &rest));
	CHECK(n + rest == needed);
	rest--;
	CHECK(p11->C_EncryptFinal(s, out + n, &rest) == CKR_BUFFER_TOO_SMALL && n + rest == needed);
	OK(p11->C_EncryptFinal(s, out + n, &rest));
	CHECK(n + rest == needed);
	opens(out + n + rest - 12, out, n + rest - 12);
}

// sessions: as many as are allowed, and a process that was forked has its own.
static void sessions(void)
{
	CK_SESSION_HANDLE more;
	CK_SESSION_INFO info;
	OK(p11->C_GetSessionInfo(s, &info));
	CHECK(p11->C_OpenSession(info.slotID, CKF_SERIAL_SESSION, NULL, NULL, &more) == CKR_SESSION_COUNT);
	OK(p11->C_CloseSession(s));
	OK(p11->C_OpenSession(info.slotID, CKF_SERIAL_SESSION, NULL, NULL, &s));
}

// forked: a child can begin anew while its parent goes on.
static void forked(void)
{
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CK_BYTE b[4];
		CHECK(p11->C_GenerateRandom(s, b, sizeof b) == CKR_OK || 1); // whatever it says, it says it
		_exit(0);
	}
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CK_BYTE b[4];
	OK(p11->C_GenerateRandom(s, b, sizeof b));
}

// speed prints nanoseconds of processor time, which other programs do not change much, for a call that does next to nothing, and for an encryption.
static void speed(void)
{
	struct timespec from, to;
	enum { N = 200000, E = 50000 };
	CK_SESSION_INFO info;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	for (int i = 0; i < N; i++)
		OK(p11->C_GetSessionInfo(s, &info));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	double call = ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / N;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	for (int i = 0; i < E; i++) {
		CK_BYTE out[256], iv[12] = {1};
		CK_ULONG outlen = sizeof out;
		CK_GCM_PARAMS p = params(iv, 12);
		OK(init(p11->C_EncryptInit, &p));
		OK(p11->C_Encrypt(s, text, sizeof text, out, &outlen));
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	printf("%.0f %.0f\n", call, ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / E);
}

static void open_token(char *pin)
{
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16, len = 32, class = 4, type = 0x1F; // CKO_SECRET_KEY, CKK_AES
	OK(p11->C_GetSlotList(1, slots, &n));
	for (CK_ULONG i = 0; i < n; i++) {
		OK(p11->C_OpenSession(slots[i], CKF_SERIAL_SESSION | 2, NULL, NULL, &s));
		if (p11->C_Login(s, CKU_USER, (CK_BYTE *)pin, strlen(pin)) == CKR_OK)
			break;
		OK(p11->C_CloseSession(s));
		CHECK(i + 1 < n);
	}
	CK_BYTE no = 0, yes = 1;
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {0x100, &type, sizeof type}, {0x161, &len, sizeof len}, {CKA_TOKEN, &no, 1},
	                    {0x104, &yes, 1}, {0x105, &yes, 1}}; // CKA_KEY_TYPE, CKA_VALUE_LEN; CKA_ENCRYPT, CKA_DECRYPT
	CK_MECHANISM m = {CKM_AES_KEY_GEN, NULL, 0};
	OK(p11->C_GenerateKey(s, &m, t, sizeof t / sizeof t[0], &key));
}

int main(int argc, char **argv)
{
	CHECK(argc == 4);
	void *module = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
	CHECK(module != NULL);
	CK_RV (*get)(CK_FUNCTION_LIST **);
	*(void **)&get = dlsym(module, "C_GetFunctionList");
	CHECK(get != NULL);
	OK(get(&p11));
	OK(p11->C_Initialize(NULL));
	open_token(argv[3]);
	const struct {
		const char *name;
		void (*run)(void);
	} commands[] = {{"returned", returned}, {"appended", appended}, {"sessions", sessions}, {"forked", forked}, {"speed", speed}};
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(commands[i].name, argv[1]) == 0) {
			commands[i].run();
			OK(p11->C_Finalize(NULL));
			dlclose(module);
			return 0;
		}
	}
	printf("there is no command %s\n", argv[1]);
	return 2;
}
