package hsm

import "context"

// An Inspector is a device that can be asked what it holds and whether that is what it should be, without using a key for anything else. It is for
// whoever compares a device with a store, and changes nothing.
type Inspector interface {
	// Survey lists what the device holds of this program's, in no order: each id once, and the canary too. It is one look at everything.
	Survey(ctx context.Context) ([]Holding, error)

	// Prove returns nil if ref was made for the key called id, and the device holds that one, of either kind: its check value opens, or a
	// signature of it verifies. If a working device does not, or has several keys in its place, the error is ErrNoKey and says what there is.
	// Survey says whether there are others beside one that is proved. A check value is only opened, so a proof is no encryption that would count.
	Prove(ctx context.Context, id ID, ref Ref) error

	// Promises says what the one key of ref lacks of what the device must promise of a key, such as that it cannot leave the device: the
	// names of attributes, or "" if nothing. The error is ErrNoKey if there is not exactly one.
	Promises(ctx context.Context, ref Ref) (lacks string, err error)

	// Refer returns a Ref of the one key called id that seals and opens, whoever made it and whatever was encrypted with it since. It is Generate for whom
	// nothing may change: it neither makes a key nor destroys anything, and uses the key once, to make the check value. The error is ErrNoKey if there is not
	// exactly one, if it lacks what it must promise, or if it does not work while the device does.
	Refer(ctx context.Context, id ID) (Ref, error)
}

// A Holding is what a device has under one id. Of an AES-256 key Keys is 1 and the others are 0; of a signer Private is 1, and Public is 1 or, where the
// object was lost, 0. Anything else is not as a Device leaves it.
type Holding struct {
	Object
	Keys    int // that seal and open
	Private int // that sign
	Public  int // halves of signers that are there for others to see
	Canary  bool
}
