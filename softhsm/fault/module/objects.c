// Handles of objects. As long as no script asks for more, a handle is that of the real module. `handles shift` adds a number to all. With
// `handles swap` a table has, for each object, its handle here and that in the real module: objects in the token are known again by their
// class, CKA_ID and CKA_LABEL, whatever handles the real module gives them.
#include "fault.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SLOTS 64
#define SHIFT 20 // bits: the distance of the handles of two generations

// no_object is a handle that no module has given.
static const CK_OBJECT_HANDLE no_object = ~0UL;

struct object {
	CK_SLOT_ID slot;
	CK_ULONG class;
	uint64_t identity; // a hash
	bool token;
	CK_OBJECT_HANDLE seen, real; // real is 0 if it is not known now
};

static pthread_mutex_t objects_mutex = PTHREAD_MUTEX_INITIALIZER; // taken after the other, if both are

static struct {
	int mode; // one of HANDLES_
	CK_ULONG shift, generation;
	atomic_bool stale;
	_Atomic CK_OBJECT_HANDLE highest; // that the application has seen

	// With HANDLES_SWAP. It outlives C_Finalize, as the handles do that an application has kept.
	struct object *list;
	size_t n, room;
} objects;

static void note_highest(CK_OBJECT_HANDLE h)
{
	CK_OBJECT_HANDLE old = atomic_load_explicit(&objects.highest, memory_order_relaxed);
	while (old < h && !atomic_compare_exchange_weak(&objects.highest, &old, h))
		;
}

static void hash(uint64_t *h, const void *p, CK_ULONG n)
{
	const CK_BYTE *b = p;
	for (CK_ULONG i = 0; i < n; i++) // FNV-1a
		*h = (*h ^ b[i]) * 0x100000001B3;
}

// identify reads what an object is known by.
static void identify(CK_SESSION_HANDLE s, CK_SLOT_ID slot, CK_OBJECT_HANDLE handle, struct object *o)
{
	CK_ULONG class = ~0UL;
	CK_BYTE token = 0, id[256], label[256];
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_TOKEN, &token, sizeof token}, {CKA_ID, id, sizeof id}, {CKA_LABEL, label, sizeof label}};
	real->C_GetAttributeValue(s, handle, t, 4); // an attribute that it has not has the length -1
	*o = (struct object){.slot = slot, .class = class, .token = token != 0, .real = handle, .identity = 0xCBF29CE484222325};
	hash(&o->identity, &class, sizeof class);
	for (int i = 2; i < 4; i++) {
		CK_ULONG n = t[i].ulValueLen <= sizeof id ? t[i].ulValueLen : 0;
		hash(&o->identity, &n, sizeof n);
		hash(&o->identity, t[i].pValue, n);
	}
}

// each calls f for every object in the token that the login shows, in a session of its own. A NULL f counts them.
static CK_RV each(CK_SLOT_ID slot, void (*f)(const struct object *), CK_ULONG *count)
{
	CK_SESSION_HANDLE s;
	CK_RV rv = real->C_OpenSession(slot, CKF_SERIAL_SESSION | 2 /* CKF_RW_SESSION: an officer may be logged in */, NULL, NULL, &s);
	if (rv != CKR_OK)
		return rv;
	CK_BYTE yes = 1;
	CK_ATTRIBUTE token = {CKA_TOKEN, &yes, sizeof yes};
	CK_OBJECT_HANDLE found[64];
	CK_ULONG n = 0;
	*count = 0;
	rv = real->C_FindObjectsInit(s, &token, 1);
	while (rv == CKR_OK && (rv = real->C_FindObjects(s, found, 64, &n)) == CKR_OK && n > 0) {
		*count += n;
		for (CK_ULONG i = 0; f != NULL && i < n; i++) {
			struct object o;
			identify(s, slot, found[i], &o);
			f(&o);
		}
	}
	real->C_FindObjectsFinal(s);
	real->C_CloseSession(s);
	return rv;
}

// ---- The table. Its functions are called with its mutex.

static struct object *add(const struct object *o, CK_OBJECT_HANDLE seen)
{
	if (objects.n == objects.room) {
		size_t room = objects.room == 0 ? 64 : 2 * objects.room;
		struct object *list = realloc(objects.list, room * sizeof *list);
		if (list == NULL)
			abort();
		objects.list = list;
		objects.room = room;
	}
	note_highest(seen);
	struct object *added = &objects.list[objects.n++];
	*added = *o;
	added->seen = seen;
	return added;
}

// know finds an object of the real module in the table, or gives it a handle that was never seen.
static struct object *know(const struct object *o)
{
	for (size_t i = 0; o->token && i < objects.n; i++) {
		struct object *old = &objects.list[i];
		if (old->token && old->real == 0 && old->slot == o->slot && old->identity == o->identity) {
			old->real = o->real;
			return old;
		}
	}
	return add(o, atomic_load(&objects.highest) + 1);
}

static void know_one(const struct object *o)
{
	know(o);
}

// know_kept is know for the moment before the first restart with a table.
static void know_kept(const struct object *o)
{
	add(o, o->real + (objects.mode == HANDLES_SHIFT ? objects.shift : 0));
}

static void drop_session_objects(void)
{
	size_t n = 0;
	for (size_t i = 0; i < objects.n; i++)
		if (objects.list[i].token)
			objects.list[n++] = objects.list[i];
	objects.n = n;
}

static void each_slot(const CK_SLOT_ID *slots, int n, void (*f)(const struct object *))
{
	for (int i = 0; i < n; i++) {
		CK_ULONG count;
		CK_RV rv = each(slots[i], f, &count);
		if (rv != CKR_OK)
			say("the objects of slot %lu cannot be listed: 0x%lx", slots[i], rv);
	}
}

// refresh finds all objects of the token again, if the real module may have given them new handles.
static void refresh(const CK_SLOT_ID *slots, int n)
{
	if (!atomic_exchange(&objects.stale, false))
		return;
	for (size_t i = 0; i < objects.n; i++)
		if (objects.list[i].token)
			objects.list[i].real = 0;
	each_slot(slots, n, know_one);
}

static void refresh_all(void)
{
	if (!atomic_load(&objects.stale))
		return;
	CK_SLOT_ID slots[MAX_SLOTS];
	pthread_mutex_lock(&mutex);
	int n = session_slots(slots, MAX_SLOTS);
	pthread_mutex_unlock(&mutex);
	pthread_mutex_lock(&objects_mutex);
	refresh(slots, n);
	pthread_mutex_unlock(&objects_mutex);
}

// ---- What calls ask.

CK_OBJECT_HANDLE object_in(struct call *c, CK_OBJECT_HANDLE seen)
{
	(void)c;
	if (seen == 0 || objects.mode == HANDLES_KEPT)
		return seen;
	if (objects.mode == HANDLES_SHIFT)
		return seen > objects.shift ? seen - objects.shift : no_object;
	refresh_all();
	CK_OBJECT_HANDLE handle = no_object;
	pthread_mutex_lock(&objects_mutex);
	for (size_t i = 0; i < objects.n; i++)
		if (objects.list[i].seen == seen && objects.list[i].real != 0)
			handle = objects.list[i].real;
	pthread_mutex_unlock(&objects_mutex);
	return handle;
}

void objects_out(struct call *c, CK_OBJECT_HANDLE *list, CK_ULONG n)
{
	if (objects.mode != HANDLES_SWAP) {
		for (CK_ULONG i = 0; i < n; i++) {
			if (objects.mode == HANDLES_SHIFT)
				list[i] += objects.shift;
			note_highest(list[i]);
		}
		return;
	}
	refresh_all();
	pthread_mutex_lock(&objects_mutex);
	for (CK_ULONG i = 0; i < n; i++) {
		const struct object *o = NULL;
		for (size_t j = 0; o == NULL && j < objects.n; j++)
			if (objects.list[j].real == list[i])
				o = &objects.list[j];
		if (o == NULL) {
			struct object new;
			identify(c->session->real, c->session->slot, list[i], &new);
			o = know(&new);
		}
		list[i] = o->seen;
	}
	pthread_mutex_unlock(&objects_mutex);
}

void object_gone(CK_OBJECT_HANDLE handle)
{
	if (objects.mode != HANDLES_SWAP)
		return;
	pthread_mutex_lock(&objects_mutex);
	for (size_t i = 0; i < objects.n; i++)
		if (objects.list[i].real == handle)
			objects.list[i--] = objects.list[--objects.n];
	pthread_mutex_unlock(&objects_mutex);
}

void objects_stale(void)
{
	atomic_store(&objects.stale, true);
}

void objects_restart(const struct settings *set)
{
	if (set->handles != HANDLES_SWAP)
		return;
	CK_SLOT_ID slots[MAX_SLOTS];
	int n = session_slots(slots, MAX_SLOTS);
	pthread_mutex_lock(&objects_mutex);
	if (objects.mode != HANDLES_SWAP) {
		objects.n = 0;
		each_slot(slots, n, know_kept);
	} else {
		refresh(slots, n);
	}
	pthread_mutex_unlock(&objects_mutex);
}

// exchange gives each object the handle of the next of its class, and the last one that of the first.
static void exchange(void)
{
	for (size_t i = 0; i < objects.n; i++) {
		struct object *o = &objects.list[i];
		for (size_t j = i + 1; j < objects.n; j++) {
			struct object *next = &objects.list[j];
			if (next->slot == o->slot && next->class == o->class) {
				CK_OBJECT_HANDLE seen = o->seen;
				o->seen = next->seen;
				next->seen = seen;
				break;
			}
		}
	}
}

void objects_begin(const struct settings *set, CK_ULONG generation)
{
	pthread_mutex_lock(&objects_mutex);
	bool restarted = generation != objects.generation;
	objects.generation = generation;
	objects.mode = (int)set->handles;
	objects.shift = generation << SHIFT;
	if (objects.mode == HANDLES_SWAP)
		drop_session_objects();
	else
		objects.n = 0;
	for (size_t i = 0; i < objects.n; i++)
		objects.list[i].real = 0;
	if (restarted)
		exchange();
	atomic_store(&objects.stale, true);
	pthread_mutex_unlock(&objects_mutex);
}

// in_token is whether a template asks for an object in the token.
static bool in_token(const CK_ATTRIBUTE *t, CK_ULONG n)
{
	for (CK_ULONG i = 0; t != NULL && i < n; i++)
		if (t[i].type == CKA_TOKEN && t[i].pValue != NULL && t[i].ulValueLen == 1)
			return *(CK_BYTE *)t[i].pValue != 0;
	return false;
}

bool objects_fit(struct call *c, const CK_ATTRIBUTE *t1, CK_ULONG n1, const CK_ATTRIBUTE *t2, CK_ULONG n2)
{
	CK_ULONG more = (CK_ULONG)in_token(t1, n1) + in_token(t2, n2), count;
	if (c->set.objects == NO_LIMIT || more == 0)
		return true;
	c->rv = each(c->session->slot, NULL, &count);
	if (c->rv == CKR_OK && count + more > c->set.objects)
		c->rv = CKR_DEVICE_MEMORY;
	return c->rv == CKR_OK;
}

// made passes the answer of a call that made objects on.
static CK_RV made(struct call *c, CK_RV rv, CK_OBJECT_HANDLE *o1, CK_OBJECT_HANDLE *o2)
{
	if (rv == CKR_OK && o1 != NULL)
		objects_out(c, o1, 1);
	if (rv == CKR_OK && o2 != NULL)
		objects_out(c, o2, 1);
	return rv;
}

CK_RV own_C_CreateObject(struct call *c, CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
	return made(c, real->C_CreateObject(s, t, n, o), o, NULL);
}

CK_RV own_C_CopyObject(struct call *c, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
	return made(c, real->C_CopyObject(s, from, t, n, o), o, NULL);
}

CK_RV own_C_GenerateKey(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
	return made(c, real->C_GenerateKey(s, m, t, n, o), o, NULL);
}

CK_RV own_C_GenerateKeyPair(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t1, CK_ULONG n1, CK_ATTRIBUTE *t2, CK_ULONG n2,
                            CK_OBJECT_HANDLE *o1, CK_OBJECT_HANDLE *o2)
{
	return made(c, real->C_GenerateKeyPair(s, m, t1, n1, t2, n2, o1, o2), o1, o2);
}

CK_RV own_C_UnwrapKey(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE by, CK_BYTE *in, CK_ULONG inlen, CK_ATTRIBUTE *t,
                      CK_ULONG n, CK_OBJECT_HANDLE *o)
{
	return made(c, real->C_UnwrapKey(s, m, by, in, inlen, t, n, o), o, NULL);
}

CK_RV own_C_DeriveKey(struct call *c, CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE from, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
	return made(c, real->C_DeriveKey(s, m, from, t, n, o), o, NULL);
}

CK_RV own_C_DestroyObject(struct call *c, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
	(void)c;
	CK_RV rv = real->C_DestroyObject(s, o);
	if (rv == CKR_OK)
		object_gone(o);
	return rv;
}

CK_RV own_C_FindObjects(struct call *c, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *list, CK_ULONG max, CK_ULONG *n)
{
	CK_RV rv = real->C_FindObjects(s, list, max, n);
	if (rv == CKR_OK && list != NULL && n != NULL)
		objects_out(c, list, *n);
	return rv;
}
