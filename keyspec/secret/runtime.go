//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Erases reports whether [Do] erases anything.
const Erases = true

// Do calls f. When it returns, nothing of f is left in registers and on the stack, and nothing of older calls on the same stack. What f allocated is erased
// when the collector finds that nobody uses it any more. See [secret.Do] for what it cannot reach; f must not call C.
func Do(f func()) { secret.Do(f) }
