#define _GNU_SOURCE
#include "script.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_SCRIPT (1 << 20) // bytes
#define MAX_RULES 256
#define MAX_WORDS 64
#define LOOK_EVERY 3 // milliseconds

// counters are those of one rule. They are in memory of this process, or in a file that all processes map.
struct counters {
	_Atomic uint64_t calls, fired;
};

struct rule {
	uint64_t functions[(F_COUNT + 63) / 64];
	enum { RULE_RETURN, RULE_DROP, RULE_DELAY, RULE_HANG, RULE_ABORT } action;
	CK_ULONG value; // CKR_ or milliseconds
	bool after, shared;
	uint64_t skip, first, every, one_in, times; // 0 if not said
	struct counters own, *counters;
};

// which says which version of a file was read. A file that is replaced has another inode, one that is rewritten another time or size.
struct which {
	int why; // it cannot be asked for
	bool there;
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec changed;
};

struct shared;

static struct {
	char path[PATH_MAX]; // empty: there is no script
	struct which which;
	uint64_t looked; // milliseconds, when
	struct settings set;
	int n;
	struct rule *rules;
	struct shared *shared; // mapped, or NULL
	int count_fd;          // -1: calls are not counted
	uint64_t random;       // state of the generator
	bool seeded;
} script = {.count_fd = -1};

static const char *const function_names[F_COUNT] = {
#define NAME(how, name, params, checks, args) [F_##name] = #name,
	FUNCTIONS(NAME)
#undef NAME
};

// has_session is whether a function is about a session: whether S is among the checks of its row.
static const bool has_session[F_COUNT] = {
#define S(s) 1 +
#define L(slot)
#define O(o)
#define M(m)
#define T(type)
#define N(t, n)
#define NN(t1, n1, t2, n2)
#define HAS_SESSION(how, name, params, checks, args) [F_##name] = checks 0,
	FUNCTIONS(HAS_SESSION)
#undef HAS_SESSION
#undef S
#undef L
#undef O
#undef M
#undef T
#undef N
#undef NN
};

void say(const char *format, ...)
{
	char line[2 * PATH_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	fprintf(stderr, "strongroom-fault: %s\n", line);
}

// The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): no secret depends on it, and the
// same seed gives the same faults.
static uint64_t random_number(void)
{
	uint64_t z = script.random += 0x9E3779B97F4A7C15;
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
	return z ^ (z >> 31);
}

void script_forked(void)
{
	if (!script.seeded && getrandom(&script.random, sizeof script.random, GRND_NONBLOCK) < 0)
		script.random = (uint64_t)getpid() << 32 ^ (uint64_t)time(NULL);
}

// ---- The language.

struct parse {
	struct settings set;
	struct rule *rules;
	int n;
	bool seeded;
	uint64_t seed;
	char count[PATH_MAX];
	unsigned said; // bits of the directives that may be there once

	int line;
	int n_words, at;
	char *words[MAX_WORDS];
};

static bool fail(struct parse *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(struct parse *p, const char *format, ...)
{
	char why[512];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	say("%s:%d: %s; every call fails until that is mended", script.path, p->line, why);
	return false;
}

static const char *next(struct parse *p)
{
	return p->at < p->n_words ? p->words[p->at++] : NULL;
}

// accept takes the next word if it is this one.
static bool accept(struct parse *p, const char *word)
{
	if (p->at >= p->n_words || strcmp(p->words[p->at], word) != 0)
		return false;
	p->at++;
	return true;
}

static bool digits(const char *w, uint64_t *n)
{
	if (!isdigit((unsigned char)w[0]))
		return false;
	char *end;
	errno = 0;
	*n = strtoull(w, &end, strncmp(w, "0x", 2) == 0 ? 16 : 10);
	return errno == 0 && *end == '\0';
}

static bool number(struct parse *p, const char *what, uint64_t min, uint64_t max, uint64_t *n)
{
	const char *w = next(p);
	if (w == NULL)
		return fail(p, "%s wants a number", what);
	if (!digits(w, n) || *n < min || *n > max)
		return fail(p, "%s: \"%s\" is not a number from %" PRIu64 " to %" PRIu64, what, w, min, max);
	return true;
}

static bool ulong_number(struct parse *p, const char *what, uint64_t min, CK_ULONG *n)
{
	uint64_t v = 0;
	if (!number(p, what, min, UINT32_MAX, &v))
		return false;
	*n = v;
	return true;
}

struct name {
	const char *name;
	CK_ULONG value;
};

#define ROW(name, value) {#name, value},
static const struct name return_values[] = {RETURN_VALUES(ROW)}, mechanisms[] = {MECHANISMS(ROW)};
#undef ROW

static bool named(const struct name *names, size_t n, const char *w, CK_ULONG *value)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(names[i].name, w) == 0) {
			*value = names[i].value;
			return true;
		}
	}
	uint64_t v;
	if (strncmp(w, "0x", 2) != 0 || !digits(w, &v) || v > ULONG_MAX)
		return false;
	*value = v;
	return true;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_return_value(const char *w, CK_RV *rv)
{
	return w != NULL && named(return_values, COUNT(return_values), w, rv);
}

static bool return_value(struct parse *p, const char *what, CK_RV *rv)
{
	const char *w = next(p);
	if (w == NULL)
		return fail(p, "%s wants a return value, as CKR_DEVICE_ERROR or 0x30", what);
	if (!is_return_value(w, rv))
		return fail(p, "%s: \"%s\" is not the name of a return value, nor a number as 0x30", what, w);
	return true;
}

// A set of functions is a range of the table, which is in the order of the specification.
static const struct {
	const char *name;
	enum function from, to;
} sets[] = {
	{"all", 0, F_COUNT - 1},
	{"*", 0, F_COUNT - 1},
	{"sessions", F_C_OpenSession, F_C_Logout},
	{"objects", F_C_CreateObject, F_C_FindObjectsFinal},
	{"objects", F_C_GenerateKey, F_C_DeriveKey},
	{"data", F_C_EncryptInit, F_C_DecryptVerifyUpdate},
	{"data", F_C_SeedRandom, F_C_GenerateRandom},
};

static void choose(struct rule *r, enum function f, bool in)
{
	uint64_t bit = UINT64_C(1) << (f % 64);
	if (in)
		r->functions[f / 64] |= bit;
	else
		r->functions[f / 64] &= ~bit;
}

static bool choose_named(struct rule *r, const char *name, bool in)
{
	bool found = false;
	for (size_t i = 0; i < COUNT(sets); i++) {
		if (strcmp(sets[i].name, name) == 0) {
			for (enum function f = sets[i].from; f <= sets[i].to; f++)
				choose(r, f, in);
			found = true;
		}
	}
	size_t n = strlen(name);
	bool prefix = n > 2 && strncmp(name, "C_", 2) == 0 && name[n - 1] == '*';
	for (enum function f = 0; f < F_COUNT; f++) {
		if (prefix ? strncmp(function_names[f], name, n - 1) == 0 : strcmp(function_names[f], name) == 0) {
			choose(r, f, in);
			found = true;
		}
	}
	return found;
}

static bool parse_on(struct parse *p)
{
	if (p->n == MAX_RULES)
		return fail(p, "there are more than %d rules", MAX_RULES);
	struct rule *r = &p->rules[p->n++];
	char *who = (char *)next(p);
	if (who == NULL)
		return fail(p, "\"on\" wants functions: C_Encrypt, C_Encrypt*, data, objects, sessions, all; or several with commas between");
	char *rest = NULL;
	for (char *w = strtok_r(who, ",", &rest); w != NULL; w = strtok_r(NULL, ",", &rest)) {
		bool in = w[0] != '-';
		if (!choose_named(r, in ? w : w + 1, in))
			return fail(p, "there is no function \"%s\"", in ? w : w + 1);
	}
	if (accept(p, "return")) {
		r->action = RULE_RETURN;
		if (!return_value(p, "return", &r->value))
			return false;
	} else if (accept(p, "drop-session")) {
		r->action = RULE_DROP;
		r->value = CKR_SESSION_HANDLE_INVALID;
		if (p->at < p->n_words && is_return_value(p->words[p->at], &r->value))
			p->at++;
		bool any = false;
		for (enum function f = 0; f < F_COUNT; f++) {
			if (!has_session[f])
				choose(r, f, false);
			any |= (r->functions[f / 64] >> (f % 64) & 1) != 0;
		}
		if (!any)
			return fail(p, "none of these functions is about a session");
	} else if (accept(p, "delay")) {
		r->action = RULE_DELAY;
		if (!ulong_number(p, "delay", 0, &r->value))
			return false;
	} else if (accept(p, "hang")) {
		r->action = RULE_HANG;
	} else if (accept(p, "abort")) {
		r->action = RULE_ABORT;
	} else {
		return fail(p, "what is to happen? return CKR_…, drop-session, delay MILLISECONDS, hang, abort");
	}
	const struct {
		const char *name;
		uint64_t *n;
	} numbers[] = {{"skip", &r->skip}, {"first", &r->first}, {"every", &r->every}, {"one-in", &r->one_in}, {"times", &r->times}};
	bool placed = false;
	while (p->at < p->n_words) {
		if (!placed && (accept(p, "after") || accept(p, "instead"))) {
			r->after = strcmp(p->words[p->at - 1], "after") == 0;
			placed = true;
			continue;
		}
		if (r->times == 0 && accept(p, "once")) {
			r->times = 1;
			continue;
		}
		if (!r->shared && accept(p, "across")) {
			if (!accept(p, "processes"))
				return fail(p, "\"across\" wants \"processes\" behind it");
			r->shared = true;
			continue;
		}
		bool found = false;
		for (size_t i = 0; i < COUNT(numbers) && !found; i++) {
			if (*numbers[i].n == 0 && accept(p, numbers[i].name)) {
				if (!number(p, numbers[i].name, 1, UINT32_MAX, numbers[i].n))
					return false;
				found = true;
			}
		}
		if (!found)
			return fail(p, "\"%s\" is not one of after, instead, skip N, first N, every N, one-in N, times N, once, across processes, or is there twice",
			            p->words[p->at]);
	}
	return true;
}

static bool parse_seed(struct parse *p)
{
	p->seeded = true;
	return number(p, "seed", 0, UINT64_MAX, &p->seed);
}

static bool parse_generation(struct parse *p)
{
	p->set.has_generation = true;
	return ulong_number(p, "generation", 0, &p->set.generation);
}

static bool parse_handles(struct parse *p)
{
	if (accept(p, "shift"))
		p->set.handles = HANDLES_SHIFT;
	else if (accept(p, "swap"))
		p->set.handles = HANDLES_SWAP;
	else
		return fail(p, "\"handles\" wants \"shift\" or \"swap\"");
	return true;
}

static bool parse_sessions(struct parse *p)
{
	if (accept(p, "reuse")) {
		if (p->set.sessions_reuse)
			return fail(p, "\"sessions reuse\" is there twice");
		p->set.sessions_reuse = true;
		return true;
	}
	if (p->set.sessions != NO_LIMIT)
		return fail(p, "\"sessions N\" is there twice");
	p->set.sessions_code = CKR_SESSION_COUNT;
	if (!ulong_number(p, "sessions", 0, &p->set.sessions))
		return false;
	if (p->at < p->n_words && strcmp(p->words[p->at], "across") != 0 && !return_value(p, "sessions", &p->set.sessions_code))
		return false;
	if (accept(p, "across")) {
		if (!accept(p, "processes"))
			return fail(p, "\"across\" wants \"processes\" behind it");
		p->set.sessions_shared = true;
	}
	return true;
}

static bool parse_slots(struct parse *p)
{
	p->set.slots_shift = true;
	return accept(p, "shift") || fail(p, "\"slots\" wants \"shift\"");
}

static bool parse_stuck(struct parse *p)
{
	p->set.stuck = true;
	return return_value(p, "stuck", &p->set.stuck_code);
}

static bool parse_away(struct parse *p)
{
	p->set.away = true;
	if (accept(p, "hang"))
		p->set.away_hang = true;
	else if (!return_value(p, "away", &p->set.away_code))
		return false;
	if (accept(p, "from")) {
		if (!accept(p, "C_Initialize"))
			return fail(p, "\"from\" wants \"C_Initialize\" behind it");
		p->set.away_all = true;
	}
	return true;
}

static bool parse_iv(struct parse *p)
{
	if (accept(p, "zeroed"))
		p->set.iv = IV_ZEROED;
	else if (accept(p, "appended"))
		p->set.iv = IV_APPENDED;
	else if (accept(p, "returned"))
		p->set.iv = IV_RETURNED;
	else
		return fail(p, "\"iv\" wants \"zeroed\", \"appended\" or \"returned\"");
	if (p->set.iv != IV_APPENDED && accept(p, "by")) {
		if (accept(p, "C_Encrypt"))
			p->set.iv_late = true;
		else if (!accept(p, "C_EncryptInit"))
			return fail(p, "\"by\" wants \"C_EncryptInit\" or \"C_Encrypt\" behind it");
	}
	return true;
}

static bool parse_idle(struct parse *p) { return ulong_number(p, "idle", 1, &p->set.idle); }
static bool parse_aad(struct parse *p) { return ulong_number(p, "aad", 0, &p->set.aad); }
static bool parse_data(struct parse *p) { return ulong_number(p, "data", 0, &p->set.data); }
static bool parse_objects(struct parse *p) { return ulong_number(p, "objects", 0, &p->set.objects); }

static bool parse_max_sessions(struct parse *p)
{
	p->set.has_max_sessions = true;
	return ulong_number(p, "ulMaxSessionCount", 0, &p->set.max_sessions);
}

static bool parse_mechanisms(struct parse *p)
{
	if (!accept(p, "without") || p->at == p->n_words)
		return fail(p, "\"mechanisms\" wants \"without\" and mechanisms, as CKM_AES_GCM or 0x1087");
	for (const char *w; (w = next(p)) != NULL;) {
		if (p->set.n_without == MAX_WITHOUT)
			return fail(p, "more than %d mechanisms are left out", MAX_WITHOUT);
		if (!named(mechanisms, COUNT(mechanisms), w, &p->set.without[p->set.n_without++]))
			return fail(p, "\"%s\" is not the name of a mechanism that is known here, nor a number as 0x1087", w);
	}
	return true;
}

static bool parse_bad_tag(struct parse *p)
{
	p->set.has_bad_tag = true;
	return return_value(p, "bad-tag", &p->set.bad_tag);
}

static bool parse_pin_tries(struct parse *p) { return ulong_number(p, "pin-tries", 1, &p->set.pin_tries); }

static bool parse_count(struct parse *p)
{
	const char *w = next(p);
	if (w == NULL)
		return fail(p, "\"count\" wants a file");
	char dir[PATH_MAX];
	snprintf(dir, sizeof dir, "%s", script.path);
	int n = snprintf(p->count, sizeof p->count, "%s%s%s", w[0] == '/' ? "" : dirname(dir), w[0] == '/' ? "" : "/", w);
	if (n < 0 || (size_t)n >= sizeof p->count)
		return fail(p, "the name of the file is too long");
	return true;
}

static const struct {
	const char *name;
	bool repeats; // may be there more than once
	bool (*parse)(struct parse *);
} directives[] = {
	{"on", true, parse_on},
	{"seed", false, parse_seed},
	{"generation", false, parse_generation},
	{"handles", false, parse_handles},
	{"sessions", true, parse_sessions},
	{"idle", false, parse_idle},
	{"slots", false, parse_slots},
	{"stuck", false, parse_stuck},
	{"away", false, parse_away},
	{"iv", false, parse_iv},
	{"aad", false, parse_aad},
	{"data", false, parse_data},
	{"objects", false, parse_objects},
	{"ulMaxSessionCount", false, parse_max_sessions},
	{"mechanisms", false, parse_mechanisms},
	{"bad-tag", false, parse_bad_tag},
	{"pin-tries", false, parse_pin_tries},
	{"count", false, parse_count},
};

static bool parse_line(struct parse *p, char *line)
{
	p->n_words = p->at = 0;
	char *rest = NULL;
	for (char *w = strtok_r(line, " \t\r", &rest); w != NULL && w[0] != '#'; w = strtok_r(NULL, " \t\r", &rest)) {
		if (p->n_words == MAX_WORDS)
			return fail(p, "more than %d words", MAX_WORDS);
		p->words[p->n_words++] = w;
	}
	const char *w = next(p);
	if (w == NULL)
		return true;
	for (size_t i = 0; i < COUNT(directives); i++) {
		if (strcmp(directives[i].name, w) != 0)
			continue;
		if (!directives[i].repeats && p->said & 1u << i)
			return fail(p, "\"%s\" is there twice", w);
		p->said |= 1u << i;
		if (!directives[i].parse(p))
			return false;
		if (p->at < p->n_words)
			return fail(p, "\"%s\" does not belong there", p->words[p->at]);
		return true;
	}
	return fail(p, "there is no directive \"%s\"", w);
}

static bool parse_text(struct parse *p, char *text)
{
	for (char *line = text; line != NULL;) {
		char *end = strchr(line, '\n');
		if (end != NULL)
			*end++ = '\0';
		p->line++;
		if (!parse_line(p, line))
			return false;
		line = end;
	}
	return true;
}

// ---- Files.

// record is a line of a file of counts: a name and a number, of a width that never changes, so that a number is replaced by one write.
#define RECORD 40

static void write_record(char line[RECORD + 1], const char *name, uint64_t n)
{
	snprintf(line, RECORD + 1, "%-23s %15" PRIu64 "\n", name, n % UINT64_C(1000000000000000));
}

static int open_counts(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	struct stat st;
	bool ok = flock(fd, LOCK_EX) == 0 && fstat(fd, &st) == 0;
	if (ok && st.st_size == 0) {
		char all[F_COUNT * RECORD + 1];
		for (int f = 0; f < F_COUNT; f++)
			write_record(all + f * RECORD, function_names[f], 0);
		ok = write(fd, all, F_COUNT * RECORD) == F_COUNT * RECORD;
	} else if (ok && st.st_size != F_COUNT * RECORD) {
		errno = EEXIST; // a file of something else
		ok = false;
	}
	if (ok)
		ok = flock(fd, LOCK_UN) == 0;
	if (!ok) {
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	return fd;
}

void script_count(enum function f)
{
	if (script.count_fd < 0)
		return;
	char line[RECORD + 1] = "";
	off_t at = (off_t)f * RECORD;
	while (flock(script.count_fd, LOCK_EX) != 0)
		if (errno != EINTR)
			return;
	if (pread(script.count_fd, line, RECORD, at) == RECORD) {
		write_record(line, function_names[f], strtoull(line + 23, NULL, 10) + 1);
		if (pwrite(script.count_fd, line, RECORD, at) != RECORD)
			say("counting %s: %s", function_names[f], strerror(errno));
	}
	flock(script.count_fd, LOCK_UN);
}

bool script_beside(char *name, unsigned long size, const char *suffix)
{
	if (script.path[0] == '\0')
		return false;
	int n = snprintf(name, size, "%s.%s", script.path, suffix);
	return n > 0 && (unsigned long)n < size;
}

// shared is the file of counters that all processes share. Each version of the script has counters of its own, which begin at zero: a file
// of another version is replaced by a new one, and processes that have that mapped keep it.
struct shared {
	char version[128];
	struct counters counters[MAX_RULES];
};

// open_shared returns the file as it now is, locked, or -1.
static int open_shared(const char *name)
{
	for (;;) {
		int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return -1;
		struct stat opened, now;
		while (flock(fd, LOCK_EX) != 0)
			if (errno != EINTR)
				goto failed;
		if (fstat(fd, &opened) != 0)
			goto failed;
		if (stat(name, &now) == 0 && now.st_dev == opened.st_dev && now.st_ino == opened.st_ino)
			return fd;
		close(fd); // another process replaced it meanwhile
		continue;
	failed:
		close(fd);
		return -1;
	}
}

// map_shared maps the counters of a version.
static struct shared *map_shared(const struct which *w)
{
	char name[PATH_MAX], made[PATH_MAX];
	struct shared head;
	if (!script_beside(name, sizeof name, "shared") || !script_beside(made, sizeof made, "shared.new"))
		return NULL;
	char version[sizeof head.version] = "";
	snprintf(version, sizeof version, "%jx %jx %jx %jx %lx", (uintmax_t)w->dev, (uintmax_t)w->ino, (uintmax_t)w->size,
	         (uintmax_t)w->changed.tv_sec, w->changed.tv_nsec);
	int fd = open_shared(name);
	if (fd < 0)
		return NULL;
	int use = fd;
	bool ok = true;
	if (pread(fd, head.version, sizeof head.version, 0) != sizeof head.version || memcmp(head.version, version, sizeof version) != 0) {
		use = open(made, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		ok = use >= 0 && write(use, version, sizeof version) == sizeof version && ftruncate(use, sizeof(struct shared)) == 0 &&
		     rename(made, name) == 0;
	}
	void *at = ok ? mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, use, 0) : MAP_FAILED;
	if (use >= 0 && use != fd)
		close(use);
	close(fd);
	return at == MAP_FAILED ? NULL : at;
}

// forget drops what was read.
static void forget(void)
{
	free(script.rules);
	script.rules = NULL;
	script.n = 0;
	if (script.shared != NULL)
		munmap(script.shared, sizeof *script.shared);
	script.shared = NULL;
	if (script.count_fd >= 0)
		close(script.count_fd);
	script.count_fd = -1;
	script.set = (struct settings){.sessions = NO_LIMIT, .idle = NO_LIMIT, .aad = NO_LIMIT, .data = NO_LIMIT, .objects = NO_LIMIT};
}

// read_all reads a whole file, and says which version that was.
static char *read_all(const char *name, struct which *w)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return NULL;
	struct stat st;
	char *text = NULL;
	if (fstat(fd, &st) == 0) {
		*w = (struct which){0, true, st.st_dev, st.st_ino, st.st_size, st.st_mtim};
		if (!S_ISREG(st.st_mode) || st.st_size > MAX_SCRIPT)
			errno = EFBIG;
		else
			text = malloc((size_t)st.st_size + 1);
	}
	size_t n = 0;
	while (text != NULL && n < (size_t)st.st_size) {
		ssize_t got = read(fd, text + n, (size_t)st.st_size - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			free(text);
			text = NULL;
		}
		if (got <= 0)
			break; // cut off meanwhile: then its time has changed, and it is read again
		n += (size_t)got;
	}
	int why = errno;
	close(fd);
	errno = why;
	if (text != NULL)
		text[n] = '\0';
	return text;
}

static bool load(char *text)
{
	struct parse *p = calloc(1, sizeof *p);
	if (p != NULL)
		p->rules = calloc(MAX_RULES, sizeof *p->rules);
	if (p == NULL || p->rules == NULL) {
		free(p);
		say("%s: no memory", script.path);
		return false;
	}
	p->set = script.set;
	bool ok = parse_text(p, text);
	if (ok && p->count[0] != '\0' && (script.count_fd = open_counts(p->count)) < 0) {
		say("%s: the file of counts %s: %s; every call fails until that is mended", script.path, p->count, strerror(errno));
		ok = false;
	}
	bool shared = false;
	for (int i = 0; i < p->n; i++)
		shared |= p->rules[i].shared;
	if (ok && shared && (script.shared = map_shared(&script.which)) == NULL) {
		say("%s: the file of shared counts beside it: %s; every call fails until that is mended", script.path, strerror(errno));
		ok = false;
	}
	if (ok) {
		for (int i = 0; i < p->n; i++)
			p->rules[i].counters = p->rules[i].shared ? &script.shared->counters[i] : &p->rules[i].own;
		script.rules = p->rules;
		script.n = p->n;
		script.set = p->set;
		script.seeded = p->seeded;
		if (p->seeded)
			script.random = p->seed;
		else
			script_forked();
	} else {
		free(p->rules);
	}
	free(p);
	return ok;
}

void script_name(const char *path)
{
	if (path == NULL)
		path = "";
	if (strcmp(path, script.path) == 0 && script.path[0] != '\0')
		return;
	forget();
	script.which = (struct which){0};
	script.looked = 0;
	if (strlen(path) >= PATH_MAX - 128) {
		say("the name of the script is too long; every call fails");
		script.path[0] = '\0';
		script.set.broken = true;
		return;
	}
	strcpy(script.path, path);
}

uint64_t milliseconds(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static bool same(const struct which *a, const struct which *b)
{
	return a->why == b->why && a->there == b->there && a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

void script_refresh(bool now)
{
	if (script.path[0] == '\0')
		return;
	uint64_t ms = milliseconds();
	if (!now && script.looked != 0 && ms - script.looked < LOOK_EVERY)
		return;
	script.looked = ms;

	struct stat st;
	struct which w = {0};
	int why = 0;
	if (stat(script.path, &st) == 0)
		w = (struct which){0, true, st.st_dev, st.st_ino, st.st_size, st.st_mtim};
	else if (errno != ENOENT)
		w.why = why = errno;
	if (same(&w, &script.which))
		return;

	forget();
	script.which = w;
	char *text = NULL;
	if (w.there && (text = read_all(script.path, &script.which)) == NULL)
		why = errno;
	if (why != 0 && why != ENOENT) {
		say("%s: %s; every call fails until that is mended", script.path, strerror(why));
		script.set.broken = true;
	} else if (text != NULL && !load(text)) {
		forget();
		script.set.broken = true;
	}
	free(text);
}

const struct settings *script_settings(void)
{
	return &script.set;
}

// ---- Rules.

static bool fires(struct rule *r)
{
	uint64_t n = atomic_fetch_add(&r->counters->calls, 1) + 1;
	if (n <= r->skip)
		return false;
	n -= r->skip;
	if (r->first != 0 && n > r->first)
		return false;
	if (r->every != 0 && n % r->every != 0)
		return false;
	if (r->one_in != 0 && random_number() % r->one_in != 0)
		return false;
	return r->times == 0 || atomic_fetch_add(&r->counters->fired, 1) < r->times;
}

struct decision script_decide(enum function f)
{
	struct decision d = {.act = GO_ON};
	for (int i = 0; i < script.n; i++) {
		struct rule *r = &script.rules[i];
		if ((r->functions[f / 64] >> (f % 64) & 1) == 0 || !fires(r))
			continue;
		switch (r->action) {
		case RULE_DELAY:
			*(r->after ? &d.delay_after : &d.delay_before) += r->value;
			continue;
		case RULE_RETURN:
			d.act = ANSWER;
			d.rv = r->value;
			break;
		case RULE_DROP:
			d.act = DROP_SESSION;
			d.rv = r->value;
			break;
		case RULE_HANG:
			d.act = HANG;
			break;
		case RULE_ABORT:
			d.act = ABORT;
			break;
		}
		d.after = r->after;
		break;
	}
	return d;
}
