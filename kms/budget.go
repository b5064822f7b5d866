package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"strongroom/hsm"
)

// DefaultSealLimit is how many ciphertexts are made under one key material.
//
// AES-GCM with random IVs of 96 bits may encrypt 2^32 times under one key (NIST SP 800-38D, section 8.3), lest two ciphertexts have one IV. Counted
// here are calls of [hsm.Device.Seal], each before it is made and whatever comes of it. A device may repeat a call within, boundedly often and only
// after a failure, and what a failed attempt made goes nowhere: from one call comes one IV with one ciphertext, or none. So of one material there are
// never more than 2^31 ciphertexts, and the chance that two of them have one IV is at most 2^61 pairs in 2^96, or one in 2^35.
//
// The other half of what the standard allows is for all uses that are not counted: those repetitions, the check value of the material, what was
// encrypted before uses were counted (of which the migration assumes another quarter of the limit), and what a store that was restored from a
// backup has forgotten.
const DefaultSealLimit = 1 << 31

const (
	// firstBlock and largestBlock bound how many uses are reserved in one go. The largest is a minute's worth at 20,000 requests a second.
	firstBlock   = 1 << 10
	largestBlock = 1 << 20

	// A block that was half used sooner than blockBusy after the one before makes the next larger, one that lasted longer than blockQuiet smaller.
	blockBusy  = 15 * time.Second
	blockQuiet = 2 * time.Minute

	// maxBlocks is how many materials have a block at a time, of some 300 bytes. Others are counted one by one in the store, until idle ones are
	// given back.
	maxBlocks = 50_000

	reserveTimeout = 5 * time.Second
	reserveRest    = 100 * time.Millisecond // before the store is asked again for what it did not give
)

// A budget hands out the uses of key materials: each encryption takes one. They are reserved in the store by blocks, before they are used, so that whatever
// happens to a process, no more are used than the store knows of; what a process that died had left of its blocks is lost. Several processes
// share what there is. A block is reserved ahead of need, in the background: a request waits for the store only if it is the first of a material, or if the
// store was slower than the requests.
//
// At half of the limit the log is told, at three quarters the key is rotated, and at the limit no use is handed out. It is safe for concurrent use.
type budget struct {
	store Store
	log   *slog.Logger
	limit int64

	// rotate gives a key new material in place of one that is worn. It is called in the background, and not twice at the same time for one material.
	rotate func(ctx context.Context, key KeyID, material hsm.ID)

	refused atomic.Int64 // encryptions, because of the limit

	mu     sync.RWMutex // held for a look into blocks, never while the store is asked
	blocks map[hsm.ID]*block
	most   int // blocks at a time

	background background
}

func newBudget(store Store, log *slog.Logger, limit int64, rotate func(context.Context, KeyID, hsm.ID)) *budget {
	if limit == 0 {
		limit = DefaultSealLimit
	}
	b := &budget{store: store, log: log, limit: limit, rotate: rotate, blocks: make(map[hsm.ID]*block), most: maxBlocks}
	b.background.init()
	return b
}

// warnAt and rotateAt are the numbers of reserved uses at which the log is told and the key is rotated.
func (b *budget) warnAt() int64   { return b.limit / 2 }
func (b *budget) rotateAt() int64 { return b.limit - b.limit/4 }

// errSpent says that a material has been used as often as it may be. A client may try again: the key is being rotated.
var errSpent = &Error{Code: KeyUnavailable, Err: errors.New("the key material has encrypted as often as it may (NIST SP 800-38D, section 8.3)")}

// A block is what this process has reserved of the uses of one material.
type block struct {
	key      KeyID
	material hsm.ID
	left     atomic.Int64 // uses that can be taken; blockClosed once what was left was given back
	low      atomic.Int64 // when no more than so many are left, the next are reserved ahead
	busy     atomic.Bool  // filling is not nil

	// What mu guards is held for moments, never while the store is asked.
	mu       sync.Mutex
	filling  chan struct{} // closed when the reservation that is running has ended; nil if there is none
	err      error         // of the last reservation
	rest     time.Time     // until when there is to be no other
	reserved int64         // of the material, by all processes, as of the last reservation
	fills    int           // reservations that gave something
	size     int64         // of the last one
	filled   time.Time     // and when
	told     time.Time     // when the log was last told that the limit is reached

	seenLeft  int64 // as giveBack last found it
	seenFills int
}

// blockClosed in place of what is left means that the block is no longer used.
const blockClosed = -1 << 62

// take takes one use, and returns how many are left.
func (k *block) take() (left int64, ok bool) {
	for {
		n := k.left.Load()
		if n <= 0 {
			return n, false
		}
		if k.left.CompareAndSwap(n, n-1) {
			return n - 1, true
		}
	}
}

// add adds uses, unless the block is closed.
func (k *block) add(n int64) bool {
	for {
		left := k.left.Load()
		if left < 0 {
			return false
		}
		if k.left.CompareAndSwap(left, left+n) {
			return true
		}
	}
}

// take takes one use of a key's material. Its error is errSpent at the limit, and otherwise says that the store could not be asked, or that ctx ended.
func (b *budget) take(ctx context.Context, key KeyID, material hsm.ID) error {
	for {
		k := b.block(key, material)
		if k == nil {
			return b.takeOne(ctx, key, material)
		}
		if left, ok := k.take(); ok {
			if left <= k.low.Load() && !k.busy.Load() {
				b.fill(k)
			}
			return nil
		}
		if err := b.wait(ctx, k); err != nil {
			return err
		}
	}
}

// block returns the block of a material, an empty one if there was none, or nil if there are too many.
func (b *budget) block(key KeyID, material hsm.ID) *block {
	b.mu.RLock()
	k := b.blocks[material]
	b.mu.RUnlock()
	if k != nil {
		return k
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if k = b.blocks[material]; k == nil && len(b.blocks) < b.most {
		k = &block{key: key, material: material, seenLeft: -1}
		b.blocks[material] = k
	}
	return k
}

// wait waits until an empty block may have something again. It returns why it does not.
func (b *budget) wait(ctx context.Context, k *block) error {
	if k.left.Load() != 0 {
		return nil
	}
	if done := b.fill(k); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left.Load() != 0 {
		return nil // or it was closed, and there will be another
	}
	return k.err
}

// fill has a reservation made for a block, if none is running and none was refused a moment ago. It returns what is closed at its end, or nil.
func (b *budget) fill(k *block) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.filling == nil && k.left.Load() >= 0 && !time.Now().Before(k.rest) {
		k.filling = make(chan struct{})
		k.busy.Store(true)
		b.background.run(func(ctx context.Context) { b.reserve(ctx, k) })
	}
	return k.filling
}

// reserve reserves a block and wakes those who wait for it. There is never more than one of it for a block.
func (b *budget) reserve(ctx context.Context, k *block) {
	k.mu.Lock()
	size := k.nextSize(time.Now())
	k.mu.Unlock()
	r, err := b.reserveUses(ctx, k.material, size)

	k.mu.Lock()
	now, failedBefore, unused := time.Now(), k.err != nil && k.err != errSpent, int64(0)
	switch {
	case err != nil:
		k.err, k.rest = &Error{Code: KeyUnavailable, Err: err}, now.Add(reserveRest)
		k.low.Store(k.left.Load() / 2) // if there is time, try again before a request has to wait
	case r.granted == 0:
		k.err, k.rest, k.reserved = errSpent, now.Add(reserveRest), r.reserved
		k.low.Store(-1) // only when a request needs it
	default:
		k.err, k.reserved, k.size, k.filled = nil, r.reserved, size, now
		k.fills++
		k.low.Store(r.granted / 2)
		if r.reserved == b.limit {
			k.low.Store(-1)
		}
		if !k.add(r.granted) {
			unused = r.granted
		}
	}
	close(k.filling)
	k.filling = nil
	k.busy.Store(false)
	k.mu.Unlock()

	switch {
	case err != nil:
		if !failedBefore && ctx.Err() == nil {
			b.log.Warn("could not reserve encryptions under a key; when what was reserved before is used up, it encrypts no more until the store answers",
				"key", k.key, "err", err)
		}
		return
	case unused > 0:
		b.returnUses(ctx, map[hsm.ID]int64{k.material: unused})
	}
	b.judge(k.key, k.material, r)
}

// nextSize returns how many uses to ask for: more than last time if those were used up fast.
func (k *block) nextSize(now time.Time) int64 {
	size := k.size
	switch age := now.Sub(k.filled); {
	case size == 0:
	case age < blockBusy:
		size *= 4
	case age > blockQuiet:
		size /= 4
	}
	return min(max(size, firstBlock), largestBlock)
}

// takeOne takes one use from the store itself.
func (b *budget) takeOne(ctx context.Context, key KeyID, material hsm.ID) error {
	r, err := b.reserveUses(ctx, material, 1)
	if err != nil {
		return &Error{Code: KeyUnavailable, Err: err}
	}
	b.judge(key, material, r)
	if r.granted == 0 {
		return errSpent
	}
	return nil
}

// judge tells the log, or has the key rotated, if a reservation says that it is time.
func (b *budget) judge(key KeyID, material hsm.ID, r reservation) {
	if before := r.reserved - r.granted; before < b.warnAt() && r.reserved >= b.warnAt() {
		b.log.Warn("a key has used up half of the encryptions that are safe under one key material; at three quarters it is rotated by itself",
			"key", key, "reserved", r.reserved, "limit", b.limit)
	}
	if r.reserved >= b.rotateAt() {
		b.background.once(material, func(ctx context.Context) { b.rotate(ctx, key, material) })
	}
}

// A reservation is what the store gave.
type reservation struct {
	granted  int64
	reserved int64 // of the material, by all, including what was granted
}

// reserveUses reserves up to size uses of a material: no more than a quarter of what is left, so that near the limit two processes come to
// share it, and one at least if there is one. If it fails they may be reserved nevertheless, and are used by nobody.
func (b *budget) reserveUses(ctx context.Context, material hsm.ID, size int64) (reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, reserveTimeout)
	defer cancel()
	var r reservation
	// Not Service.update: nobody remembers this.
	err := b.store.Update(ctx, func(tx Tx) error {
		n, err := tx.MaterialUses(material)
		if err != nil {
			return err
		}
		r = reservation{reserved: n}
		if n >= b.limit {
			return nil
		}
		r.granted = min(size, (b.limit-n+3)/4)
		r.reserved += r.granted
		return tx.SetMaterialUses(material, n, r.reserved)
	})
	if err != nil {
		return reservation{}, fmt.Errorf("reserve encryptions under material %s: %w", material, err)
	}
	return r, nil
}

// returnUses gives back uses that were reserved and can not be taken any more. If it fails they are lost: to try again could give them back twice.
func (b *budget) returnUses(ctx context.Context, unused map[hsm.ID]int64) {
	err := b.store.Update(ctx, func(tx Tx) error {
		for material, n := range unused {
			now, err := tx.MaterialUses(material)
			if isNotStored(err) {
				continue // destroyed
			}
			if err != nil {
				return err
			}
			// Fewer than were reserved are there only if the store was put back to an earlier state.
			if err := tx.SetMaterialUses(material, now, max(0, now-n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		b.log.Warn("could not give back reserved encryptions; they count as used", "materials", len(unused), "err", err)
	}
}

// returnBatch is how many materials' uses are given back in one transaction.
const returnBatch = 200

// giveBack closes blocks and gives back what is left of them: all, or those of which nothing was taken since giveBack was last called.
func (b *budget) giveBack(ctx context.Context, all bool) {
	var closing []*block
	b.mu.Lock()
	for material, k := range b.blocks {
		k.mu.Lock()
		left := k.left.Load()
		idle := k.filling == nil && left == k.seenLeft && k.fills == k.seenFills
		k.seenLeft, k.seenFills = left, k.fills
		k.mu.Unlock()
		if all || idle {
			delete(b.blocks, material)
			closing = append(closing, k)
		}
	}
	b.mu.Unlock()

	unused := make(map[hsm.ID]int64)
	flush := func() {
		if len(unused) > 0 {
			b.returnUses(ctx, unused)
			clear(unused)
		}
	}
	for _, k := range closing {
		// After it was taken out of the map, so that who finds it closed does not find it again.
		if n := k.left.Swap(blockClosed); n > 0 {
			unused[k.material] = n
		}
		if len(unused) >= returnBatch {
			flush()
		}
	}
	flush()
}

// drop gives back what is left of a material that encrypts no more.
func (b *budget) drop(ctx context.Context, material hsm.ID) {
	b.mu.Lock()
	k := b.blocks[material]
	delete(b.blocks, material)
	b.mu.Unlock()
	if k == nil {
		return
	}
	if n := k.left.Swap(blockClosed); n > 0 {
		b.returnUses(ctx, map[hsm.ID]int64{material: n})
	}
}

// stop ends what runs in the background and gives everything back. The budget can be used after it.
func (b *budget) stop(ctx context.Context) {
	b.background.stop() // which waits for a rotation, if there is one
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	b.giveBack(ctx, true)
}
