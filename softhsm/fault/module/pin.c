// A token that counts wrong PINs and locks. SoftHSM does not. The count is in a file beside the script, because the token is one and its
// users are many processes.
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

// pins is what the file says, in three lines.
struct pins {
	CK_ULONG wrong;             // since the last right one
	CK_ULONG attempts, refused; // ever: PINs that the token compared, and those that it did not because it was locked
};

#define FORMAT "wrong    %10lu\nattempts %10lu\nrefused  %10lu\n"

// pins_open locks the file and reads it. It returns -1 if that is not possible.
static int pins_open(struct pins *p)
{
	char name[PATH_MAX], text[128];
	*p = (struct pins){0};
	if (!script_beside(name, sizeof name, "pin"))
		return -1;
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		goto failed;
	while (flock(fd, LOCK_EX) != 0)
		if (errno != EINTR)
			goto failed;
	ssize_t n = pread(fd, text, sizeof text - 1, 0);
	if (n < 0)
		goto failed;
	text[n] = '\0';
	if (n > 0 && sscanf(text, FORMAT, &p->wrong, &p->attempts, &p->refused) != 3) {
		errno = EINVAL;
		goto failed;
	}
	return fd;
failed:
	say("%s: %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

// pins_close writes the file, if it is to be changed, and unlocks it.
static bool pins_close(int fd, const struct pins *p)
{
	bool ok = true;
	if (p != NULL) {
		char text[128];
		int n = snprintf(text, sizeof text, FORMAT, p->wrong, p->attempts, p->refused);
		ok = pwrite(fd, text, (size_t)n, 0) == n;
	}
	return close(fd) == 0 && ok;
}

// may_try locks the file for an attempt, so that no two processes use the same try. If it is false, the call is answered already.
static bool may_try(struct call *c, int *fd, struct pins *p)
{
	c->rv = CKR_GENERAL_ERROR;
	if ((*fd = pins_open(p)) < 0)
		return false;
	if (p->wrong < c->set.pin_tries)
		return true;
	p->refused++;
	if (pins_close(*fd, p))
		c->rv = CKR_PIN_LOCKED;
	return false;
}

// tried notes what the token said to an attempt, and unlocks the file.
static CK_RV tried(int fd, struct pins *p, CK_RV rv)
{
	if (rv == CKR_OK || rv == CKR_PIN_INCORRECT) {
		p->attempts++;
		p->wrong = rv == CKR_OK ? 0 : p->wrong + 1;
	}
	return pins_close(fd, p) ? rv : CKR_GENERAL_ERROR;
}

CK_RV own_C_Login(struct call *c, CK_SESSION_HANDLE s, CK_ULONG user, CK_BYTE *pin, CK_ULONG len)
{
	objects_stale();
	if (c->set.pin_tries == 0 || user != CKU_USER)
		return real->C_Login(s, user, pin, len);
	struct pins pins;
	int fd;
	if (!may_try(c, &fd, &pins))
		return c->rv;
	return tried(fd, &pins, real->C_Login(s, user, pin, len));
}

CK_RV own_C_SetPIN(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *old, CK_ULONG oldlen, CK_BYTE *new, CK_ULONG newlen)
{
	CK_SESSION_INFO info;
	enum { CKS_RW_SO_FUNCTIONS = 4 };
	if (c->set.pin_tries == 0 || (real->C_GetSessionInfo(s, &info) == CKR_OK && info.state == CKS_RW_SO_FUNCTIONS))
		return real->C_SetPIN(s, old, oldlen, new, newlen);
	struct pins pins;
	int fd;
	if (!may_try(c, &fd, &pins))
		return c->rv;
	return tried(fd, &pins, real->C_SetPIN(s, old, oldlen, new, newlen));
}

// own_C_InitPIN is how the security officer unlocks a token.
CK_RV own_C_InitPIN(struct call *c, CK_SESSION_HANDLE s, CK_BYTE *pin, CK_ULONG len)
{
	CK_RV rv = real->C_InitPIN(s, pin, len);
	if (rv != CKR_OK || c->set.pin_tries == 0)
		return rv;
	struct pins pins;
	int fd = pins_open(&pins);
	if (fd < 0)
		return CKR_GENERAL_ERROR;
	pins.wrong = 0;
	return pins_close(fd, &pins) ? rv : CKR_GENERAL_ERROR;
}

CK_FLAGS pin_flags(struct call *c, CK_FLAGS flags)
{
	if (c->set.pin_tries == 0)
		return flags;
	flags &= ~(CK_FLAGS)(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
	struct pins pins;
	int fd = pins_open(&pins);
	if (fd < 0)
		return flags;
	pins_close(fd, NULL);
	if (pins.wrong > 0)
		flags |= CKF_USER_PIN_COUNT_LOW;
	if (pins.wrong + 1 == c->set.pin_tries)
		flags |= CKF_USER_PIN_FINAL_TRY;
	if (pins.wrong >= c->set.pin_tries)
		flags |= CKF_USER_PIN_LOCKED;
	return flags;
}
