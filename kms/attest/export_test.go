package attest

import "time"

// Assemble makes an envelope of its parts.
var Assemble = assemble

// Payload returns what the signature of d is of.
func (d *Document) Payload() []byte { return d.payload }

// Known returns how many chains v remembers.
func (v *Verifier) Known() int {
	v.chains.mu.Lock()
	defer v.chains.mu.Unlock()
	if len(v.chains.known) != v.chains.recent.Len() {
		panic("the map and the list of chains differ")
	}
	return len(v.chains.known)
}

// Knows reports whether v remembers the chain of d as one that holds at the given time. It counts as a use of the chain.
func (v *Verifier) Knows(d *Document, at time.Time) bool {
	return v.chains.find(hashChain(d), at) != nil
}
