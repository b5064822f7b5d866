// Package secret has work done that leaves nothing behind: it is [runtime/secret] in a program that was built with GOEXPERIMENT=runtimesecret, as `make
// build` does. In any other it does the work and no more.
//
// It is for what cannot be wiped by hand: copies of secrets that libraries make for themselves, in memory that they do not show, on stacks and in registers.
package secret
