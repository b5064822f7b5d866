// Slots, tokens and sessions, with numbers of their own.
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS 256
#define MAX_PLACES 65536 // of `sessions N across processes`

static struct session *buckets[BUCKETS], *unused;
static CK_ULONG n_sessions; // and those that are about to be opened
static CK_SESSION_HANDLE last_number;

// find returns where the pointer to a session is.
static struct session **find(CK_SESSION_HANDLE number)
{
	struct session **at = &buckets[number % BUCKETS];
	while (*at != NULL && (*at)->number != number)
		at = &(*at)->next;
	return at;
}

bool session(struct call *c, CK_SESSION_HANDLE *s)
{
	bool idle = false;
	pthread_mutex_lock(&mutex);
	c->session = *find(*s);
	if (c->session != NULL) {
		*s = c->session->real;
		if (c->set.idle != NO_LIMIT) {
			uint64_t now = milliseconds();
			idle = now - c->session->used > c->set.idle;
			c->session->used = now;
		}
	} else {
		c->rv = in_force.initialised ? CKR_SESSION_HANDLE_INVALID : CKR_CRYPTOKI_NOT_INITIALIZED;
	}
	pthread_mutex_unlock(&mutex);
	if (c->session == NULL)
		return false;
	if (idle) {
		session_drop(c, CKR_SESSION_HANDLE_INVALID);
		return false;
	}
	if (c->decision.act == DROP_SESSION && !c->decision.after) {
		session_drop(c, c->decision.rv);
		return false;
	}
	return true;
}

// ---- Places: the sessions of all processes are locks on bytes of one file, which the system takes back from a process that ends.

static struct {
	int fd;
	char name[PATH_MAX];
	bool taken[MAX_PLACES]; // by this process, whose own locks do not keep it out
} places = {.fd = -1};

// place_take returns a place that no process has, or -1.
static int place_take(CK_ULONG limit)
{
	char name[PATH_MAX];
	if (!script_beside(name, sizeof name, "sessions"))
		return -1;
	if (strcmp(name, places.name) != 0) {
		if (places.fd >= 0)
			close(places.fd);
		memset(&places, 0, sizeof places);
		strcpy(places.name, name);
		if ((places.fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0) {
			say("%s: %s", name, strerror(errno));
			places.name[0] = '\0';
		}
	}
	for (int i = 0; places.fd >= 0 && i < MAX_PLACES && (CK_ULONG)i < limit; i++) {
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1};
		if (!places.taken[i] && fcntl(places.fd, F_SETLK, &lock) == 0) {
			places.taken[i] = true;
			return i;
		}
	}
	return -1;
}

static void place_leave(int i)
{
	if (i < 0 || places.fd < 0)
		return;
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1};
	fcntl(places.fd, F_SETLK, &lock);
	places.taken[i] = false;
}

// ---- Sessions.

// session_new returns one that is in no bucket yet, or NULL if the script allows no more.
static struct session *session_new(struct call *c)
{
	int place = -1;
	if (c->set.sessions_shared) {
		if ((place = place_take(c->set.sessions)) < 0)
			return NULL;
	} else if (n_sessions >= c->set.sessions) {
		return NULL;
	}
	struct session *s = unused;
	if (s != NULL)
		unused = s->next;
	else if ((s = malloc(sizeof *s)) == NULL) {
		place_leave(place);
		return NULL;
	}
	n_sessions++;
	memset(s, 0, sizeof *s);
	s->place = place;
	return s;
}

static void session_free(struct session *s)
{
	place_leave(s->place);
	s->place = -1;
	n_sessions--;
	s->next = unused;
	unused = s;
}

static void session_close(CK_SESSION_HANDLE number)
{
	struct session **at = find(number), *s = *at;
	if (s == NULL)
		return; // closed meanwhile
	*at = s->next;
	session_free(s);
}

// close_slot forgets the sessions of a slot, or of all.
static void close_slot(bool all, CK_SLOT_ID slot)
{
	for (int i = 0; i < BUCKETS; i++) {
		for (struct session **at = &buckets[i], *s; (s = *at) != NULL;) {
			if (all || s->slot == slot) {
				*at = s->next;
				session_free(s);
			} else {
				at = &s->next;
			}
		}
	}
}

void sessions_lost(bool reuse)
{
	close_slot(true, 0);
	if (reuse)
		last_number = 0;
}

int session_slots(CK_SLOT_ID *slots, int max)
{
	int n = 0;
	for (int i = 0; i < BUCKETS; i++) {
		for (struct session *s = buckets[i]; s != NULL; s = s->next) {
			int j = 0;
			while (j < n && slots[j] != s->slot)
				j++;
			if (j == n && n < max)
				slots[n++] = s->slot;
		}
	}
	return n;
}

CK_RV own_C_OpenSession(struct call *c, CK_SLOT_ID slot, CK_FLAGS flags, void *app, void *notify, CK_SESSION_HANDLE *out)
{
	if (out == NULL)
		return real->C_OpenSession(slot, flags, app, notify, out);
	pthread_mutex_lock(&mutex);
	struct session *s = session_new(c);
	pthread_mutex_unlock(&mutex);
	if (s == NULL)
		return c->set.sessions_code;
	s->slot = slot;
	CK_RV rv = real->C_OpenSession(slot, flags, app, notify, &s->real);
	pthread_mutex_lock(&mutex);
	if (rv == CKR_OK) {
		*out = s->number = ++last_number;
		s->used = milliseconds();
		struct session **bucket = &buckets[s->number % BUCKETS];
		s->next = *bucket;
		*bucket = s;
	} else {
		session_free(s);
	}
	pthread_mutex_unlock(&mutex);
	return rv;
}

void session_drop(struct call *c, CK_RV rv)
{
	if (c->session != NULL) {
		CK_SESSION_HANDLE number = c->session->number;
		real->C_CloseSession(c->session->real);
		pthread_mutex_lock(&mutex);
		session_close(number);
		pthread_mutex_unlock(&mutex);
		c->session = NULL;
	}
	c->rv = rv;
}

CK_RV own_C_CloseSession(struct call *c, CK_SESSION_HANDLE s)
{
	CK_SESSION_HANDLE number = c->session->number;
	CK_RV rv = real->C_CloseSession(s);
	if (rv == CKR_OK || rv == CKR_SESSION_HANDLE_INVALID) {
		pthread_mutex_lock(&mutex);
		session_close(number);
		pthread_mutex_unlock(&mutex);
		c->session = NULL; // it may be used again
	}
	return rv;
}

CK_RV own_C_CloseAllSessions(struct call *c, CK_SLOT_ID slot)
{
	(void)c;
	CK_RV rv = real->C_CloseAllSessions(slot);
	if (rv == CKR_OK) {
		pthread_mutex_lock(&mutex);
		close_slot(false, slot);
		pthread_mutex_unlock(&mutex);
	}
	return rv;
}

CK_RV own_C_GetSessionInfo(struct call *c, CK_SESSION_HANDLE s, CK_SESSION_INFO *info)
{
	(void)c;
	CK_RV rv = real->C_GetSessionInfo(s, info);
	if (rv == CKR_OK)
		info->slotID += in_force.slot_offset;
	return rv;
}

// ---- Slots and tokens.

CK_RV own_C_GetSlotList(struct call *c, CK_BYTE present, CK_SLOT_ID *list, CK_ULONG *n)
{
	(void)c;
	CK_RV rv = real->C_GetSlotList(present, list, n);
	for (CK_ULONG i = 0; rv == CKR_OK && list != NULL && i < *n; i++)
		list[i] += in_force.slot_offset;
	return rv;
}

CK_RV own_C_WaitForSlotEvent(struct call *c, CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved)
{
	(void)c;
	CK_RV rv = real->C_WaitForSlotEvent(flags, slot, reserved);
	if (rv == CKR_OK)
		*slot += in_force.slot_offset;
	return rv;
}

CK_RV own_C_GetTokenInfo(struct call *c, CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
	CK_RV rv = real->C_GetTokenInfo(slot, info);
	if (rv != CKR_OK)
		return rv;
	info->flags = pin_flags(c, info->flags);
	if (c->set.has_max_sessions)
		info->ulMaxSessionCount = info->ulMaxRwSessionCount = c->set.max_sessions;
	return CKR_OK;
}

static bool left_out(const struct call *c, CK_ULONG type)
{
	for (int i = 0; i < c->set.n_without; i++)
		if (c->set.without[i] == type)
			return true;
	return false;
}

bool mechanism(struct call *c, CK_ULONG type)
{
	c->rv = CKR_MECHANISM_INVALID;
	return !left_out(c, type);
}

CK_RV own_C_GetMechanismList(struct call *c, CK_SLOT_ID slot, CK_ULONG *list, CK_ULONG *n)
{
	if (c->set.n_without == 0 || n == NULL)
		return real->C_GetMechanismList(slot, list, n);
	CK_ULONG all = 0, kept = 0;
	CK_RV rv = real->C_GetMechanismList(slot, NULL, &all);
	if (rv != CKR_OK)
		return rv;
	CK_ULONG *types = calloc(all + 1, sizeof *types);
	if (types == NULL)
		return CKR_HOST_MEMORY;
	rv = real->C_GetMechanismList(slot, types, &all);
	for (CK_ULONG i = 0; rv == CKR_OK && i < all; i++)
		if (!left_out(c, types[i]))
			types[kept++] = types[i];
	if (rv == CKR_OK && list != NULL) {
		if (*n < kept)
			rv = CKR_BUFFER_TOO_SMALL;
		else
			memcpy(list, types, kept * sizeof *types);
	}
	if (rv == CKR_OK || rv == CKR_BUFFER_TOO_SMALL)
		*n = kept;
	free(types);
	return rv;
}
