// A PKCS #11 module that passes every call on to another one, and misbehaves as a script says. See README.md.
//
// A call goes through begin, which asks the script; the checks of its row in pkcs11.h, which translate what it names; the real module; and end.
// While it is in the real module it has a lock for reading. A restart of the device has it for writing, because no session may be closed while
// a call uses it.
#define _GNU_SOURCE
#include "fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

CK_FUNCTION_LIST *real;
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
struct in_force in_force;

// Restarts must not have to wait until no call is in progress by chance.
#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
#define RESTART_LOCK PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
#else
#define RESTART_LOCK PTHREAD_RWLOCK_INITIALIZER
#endif
static pthread_rwlock_t restart_lock = RESTART_LOCK;

static bool restart_due(void)
{
	const struct settings *set = script_settings();
	return in_force.initialised && set->has_generation && set->generation != in_force.generation;
}

// put_in_force begins a generation. The caller has both locks.
static void put_in_force(void)
{
	const struct settings *set = script_settings();
	in_force.generation = set->has_generation ? set->generation : 0;
	in_force.slot_offset = set->slots_shift ? in_force.generation : 0;
	sessions_lost(set->sessions_reuse);
	objects_begin(set, in_force.generation);
}

// restart is what an application sees of a device that was switched off and on.
static void restart(void)
{
	enum { MAX_SLOTS = 64 };
	CK_SLOT_ID slots[MAX_SLOTS];
	int n = session_slots(slots, MAX_SLOTS);
	objects_restart(script_settings());
	for (int i = 0; i < n; i++) {
		CK_RV rv = real->C_CloseAllSessions(slots[i]); // logs out, too
		if (rv != CKR_OK)
			say("a restart is not complete: C_CloseAllSessions of the real module: 0x%lx", rv);
	}
	put_in_force();
	in_force.stuck = script_settings()->stuck;
	in_force.stuck_code = script_settings()->stuck_code;
}

static void wait_for(CK_ULONG milliseconds)
{
	if (milliseconds == 0)
		return;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(milliseconds / 1000);
	until.tv_nsec += (long)(milliseconds % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

static void __attribute__((noreturn)) hang(void)
{
	for (;;)
		pause();
}

// act does what a rule says, and is false if that is an answer.
static bool act(struct call *c)
{
	switch (c->decision.act) {
	case HANG:
		hang();
	case ABORT:
		abort();
	case ANSWER:
		c->rv = c->decision.rv;
		return false;
	case DROP_SESSION: // when it is known, by session or by end
	case GO_ON:
		break;
	}
	return true;
}

// begin is whether the real call is to be made. If not, the answer is there.
static bool begin(struct call *c, enum function f)
{
	c->decision = (struct decision){.act = GO_ON};
	c->locked = false;
	c->session = NULL;

	pthread_mutex_lock(&mutex);
	if (f == F_C_Initialize)
		script_name(getenv("STRONGROOM_FAULT_SCRIPT"));
	script_refresh(f == F_C_Initialize);
	while (restart_due()) {
		pthread_mutex_unlock(&mutex);
		pthread_rwlock_wrlock(&restart_lock);
		pthread_mutex_lock(&mutex);
		if (restart_due())
			restart();
		pthread_rwlock_unlock(&restart_lock);
	}
	script_count(f);
	c->set = *script_settings();
	bool away = c->set.away && (c->set.away_all || (f != F_C_Initialize && f != F_C_Finalize));
	bool stuck = in_force.stuck && f != F_C_Initialize && f != F_C_Finalize;
	CK_RV stuck_code = in_force.stuck_code;
	if (!c->set.broken && !away && !stuck)
		c->decision = script_decide(f);
	pthread_mutex_unlock(&mutex);

	if (c->set.broken) {
		c->rv = CKR_GENERAL_ERROR;
		return false;
	}
	if (away) {
		if (c->set.away_hang)
			hang();
		c->rv = c->set.away_code;
		return false;
	}
	if (stuck) {
		c->rv = stuck_code;
		return false;
	}
	wait_for(c->decision.delay_before);
	if (!c->decision.after && !act(c)) {
		wait_for(c->decision.delay_after);
		c->decision = (struct decision){.act = GO_ON};
		return false;
	}
	// C_WaitForSlotEvent may wait for ever, and touches nothing.
	if (f == F_C_Initialize)
		c->locked = pthread_rwlock_wrlock(&restart_lock) == 0;
	else if (f != F_C_WaitForSlotEvent)
		c->locked = pthread_rwlock_rdlock(&restart_lock) == 0;
	return true;
}

static CK_RV end(struct call *c)
{
	if (c->decision.act == DROP_SESSION && c->decision.after)
		session_drop(c, c->decision.rv);
	if (c->locked)
		pthread_rwlock_unlock(&restart_lock);
	wait_for(c->decision.delay_after);
	if (c->decision.after)
		act(c);
	return c->rv;
}

static CK_RV own_C_Initialize(struct call *c, void *args)
{
	(void)c;
	CK_RV rv = real->C_Initialize(args);
	if (rv == CKR_OK) {
		pthread_mutex_lock(&mutex);
		put_in_force();
		in_force.initialised = true;
		in_force.stuck = false;
		pthread_mutex_unlock(&mutex);
	}
	return rv;
}

static CK_RV own_C_Finalize(struct call *c, void *reserved)
{
	(void)c;
	CK_RV rv = real->C_Finalize(reserved);
	if (rv == CKR_OK) {
		pthread_mutex_lock(&mutex);
		in_force.initialised = in_force.stuck = false;
		sessions_lost(false);
		pthread_mutex_unlock(&mutex);
	}
	return rv;
}

// ---- The functions, from the table in pkcs11.h.

#define S(s) && session(&c, &(s))
#define L(slot) && ((slot) -= in_force.slot_offset, true)
#define O(o) && ((o) = object_in(&c, (o)), true)
#define M(m) && ((m) == NULL || mechanism(&c, (m)->mechanism))
#define T(type) && mechanism(&c, (type))
#define N(t, n) && objects_fit(&c, (t), (n), NULL, 0)
#define NN(t1, n1, t2, n2) && objects_fit(&c, (t1), (n1), (t2), (n2))

#define CALL_PASS(name, args) (real->name == NULL ? CKR_FUNCTION_NOT_SUPPORTED : real->name args)
#define CALL_OWN(name, args) (real->name == NULL ? CKR_FUNCTION_NOT_SUPPORTED : own_##name args)

#define WRAP(how, name, params, checks, args) \
	static CK_RV wrapped_##name params \
	{ \
		struct call c; \
		if (begin(&c, F_##name) checks) \
			c.rv = CALL_##how(name, args); \
		return end(&c); \
	}
FUNCTIONS(WRAP)
#undef WRAP

#define WRAPPED(how, name, params, checks, args) .name = wrapped_##name,
static CK_FUNCTION_LIST list = {.version = {2, 40}, FUNCTIONS(WRAPPED)};
#undef WRAPPED

CK_RV __attribute__((visibility("default"))) C_GetFunctionList(CK_FUNCTION_LIST **out);

// A child that was forked begins with nobody in a call.
static void before_fork(void)
{
	pthread_rwlock_wrlock(&restart_lock);
	pthread_mutex_lock(&mutex);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&mutex);
	pthread_rwlock_unlock(&restart_lock);
}

static void in_child(void)
{
	script_forked();
	pthread_mutex_unlock(&mutex);
	restart_lock = (pthread_rwlock_t)RESTART_LOCK; // it belongs to a thread of the parent, so this one could not unlock it
}

static void load(void)
{
	const char *path = getenv("STRONGROOM_FAULT_MODULE");
	if (path == NULL || path[0] == '\0') {
		say("STRONGROOM_FAULT_MODULE does not name the PKCS #11 module to forward to");
		return;
	}
	// Calls that hang are in this module for ever, so it must not be unmapped.
	Dl_info self;
	if (dladdr((void *)&list, &self) != 0)
		dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (module == NULL) {
		say("STRONGROOM_FAULT_MODULE: %s", dlerror());
		return;
	}
	CK_RV (*get)(CK_FUNCTION_LIST **);
	*(void **)&get = dlsym(module, "C_GetFunctionList");
	CK_FUNCTION_LIST *found = NULL;
	if (get == NULL || get == C_GetFunctionList) {
		say("STRONGROOM_FAULT_MODULE: %s is %s", path, get == NULL ? "not a PKCS #11 module: it has no C_GetFunctionList" : "this module itself");
	} else if (get(&found) != CKR_OK || found == NULL) {
		say("STRONGROOM_FAULT_MODULE: C_GetFunctionList of %s failed", path);
	} else {
		if (found->version.major == 2)
			list.version = found->version;
		list.C_GetFunctionList = C_GetFunctionList;
		real = found;
		pthread_atfork(before_fork, in_parent, in_child);
		return;
	}
	dlclose(module);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	if (out == NULL)
		return CKR_ARGUMENTS_BAD;
	pthread_once(&once, load);
	if (real == NULL)
		return CKR_GENERAL_ERROR;
	*out = &list;
	return CKR_OK;
}
