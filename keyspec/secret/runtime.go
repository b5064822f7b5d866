//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Erases reports whether [Do] erases anything.
const Erases = true

// Do calls f. When it returns, nothing of f is left in registers and on the stack, and nothing of older calls on the same stack. What f allocated is erased
// when the collector finds that nobody uses it any more. See [secret.Do] for what it cannot reach; f must not call C.
func Do(f func()) {
	if !overwritten {
		secret.Do(f)
		return
	}
	deepen()
	p := within(f)
	secret.Do(func() {}) // which erases the stack of f, too
	if p != nil {
		panic(p)
	}
}

// within calls f, and returns what it panics with, so that nothing of f is on the stack then. The empty Do has frames of its own where this has pad, which
// it does not erase.
//
//go:noinline
func within(f func()) (p any) {
	var pad [512]byte
	touch(&pad[0])
	defer func() { p = recover() }()
	f()
	return nil
}

// Overwritten tells Do that the collector overwrites all that it frees, and that Go moves no stack to a smaller place and interrupts no thread by a signal: see
// the settings clobberfree, gcshrinkstackoff and asyncpreemptoff of GODEBUG. So what f allocates need not be marked piece by piece, which for the
// numbers of a search for primes takes 6 % of the search; single words may be left on the stacks of Go's own that are not f's. It is called before the first Do.
func Overwritten() { overwritten = true }

var overwritten bool

// deepen has the stack grow now, and not when there are secrets on it, which would stay where it was before. A larger array than this would not be on the stack.
//
//go:noinline
func deepen() {
	var room [128 << 10]byte
	touch(&room[0])
}

//go:noinline
func touch(*byte) {}
