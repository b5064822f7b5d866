// The script: what the fault module is told to do. README.md has the language.
#ifndef STRONGROOM_FAULT_SCRIPT_H
#define STRONGROOM_FAULT_SCRIPT_H

#include <stdbool.h>
#include <stdint.h>

#include "names.h"
#include "pkcs11.h"

#define NO_LIMIT (~0UL)
#define MAX_WITHOUT 32

// settings are the directives that are states, not events. It holds no pointers, so that each call can have a copy, and no call needs to
// know when the script that it began under was replaced.
struct settings {
	bool broken; // the script has a fault: nothing works

	bool has_generation;
	CK_ULONG generation;
	enum { HANDLES_KEPT, HANDLES_SHIFT, HANDLES_SWAP } handles;
	bool sessions_reuse;
	bool slots_shift;
	bool stuck;
	CK_RV stuck_code;

	bool away, away_hang, away_all;
	CK_RV away_code;

	enum { IV_CALLER, IV_ZEROED, IV_APPENDED, IV_RETURNED } iv;
	bool iv_late; // the caller's memory is written by C_Encrypt and not by C_EncryptInit

	CK_ULONG sessions; // limits are NO_LIMIT if there is none
	bool sessions_shared;
	CK_RV sessions_code;
	CK_ULONG idle; // milliseconds
	CK_ULONG aad, data, objects;
	bool has_max_sessions;
	CK_ULONG max_sessions;
	int n_without;
	CK_ULONG without[MAX_WITHOUT];

	bool has_bad_tag;
	CK_RV bad_tag;
	CK_ULONG pin_tries; // 0 if they are not counted here
};

// A decision is what the rules say to one call.
struct decision {
	enum { GO_ON, ANSWER, DROP_SESSION, HANG, ABORT } act;
	bool after; // act when the real call has been made
	CK_RV rv;   // of ANSWER and DROP_SESSION
	CK_ULONG delay_before, delay_after; // milliseconds
};

// milliseconds is a clock that is cheap, and right within a few of them.
uint64_t milliseconds(void);

// The functions below are not safe for threads: the caller has the module's lock.

// script_name sets the path of the script, or NULL.
void script_name(const char *path);

// script_refresh reads the script if it has changed. Unless now is true, it looks at most every few milliseconds.
void script_refresh(bool now);

// script_settings are those of the script as it was read last.
const struct settings *script_settings(void);

// script_count counts a call, if the script wants that.
void script_count(enum function f);

// script_decide asks the rules, and advances their counters.
struct decision script_decide(enum function f);

// script_forked makes the random numbers of a child process others than its parent's.
void script_forked(void);

// script_beside writes the name of a file of state: that of the script, a dot and suffix. It is false if there is no script or no room.
bool script_beside(char *name, unsigned long size, const char *suffix);

// say prints a line on the standard error output, where a test or an operator sees it.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
