package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"strongroom/hsm"
	"strongroom/kms/policy"
)

// An Irregularity is something in a store, or between it and a device, that is not as the service leaves it, or that it has yet to finish.
type Irregularity struct {
	Kind     IrregularityKind
	Account  string
	Key      KeyID  // zero if it is about no key
	Material hsm.ID // or the id of an object; zero if it is about none
	Name     string // of a system key, of a principal, or the label of an object
	State    KeyState
	Since    time.Time // zero if not known
	Late     bool      // it is unfinished for longer than a server that runs takes to finish it
	Detail   string
}

// An IrregularityKind says what is not as it should be.
type IrregularityKind string

// Of the store alone.
const (
	UnreadableRow    IrregularityKind = "unreadable-row"    // a key's row cannot be read
	UnreadablePolicy IrregularityKind = "unreadable-policy" // a policy cannot be: of a key, or, with Name, of a principal
	NoMaterial       IrregularityKind = "no-material"       // a key that clients see has nothing to encrypt with
	LostMaterial     IrregularityKind = "lost-material"     // a material that is not the newest has no Ref
	SpentMaterial    IrregularityKind = "spent-material"    // the newest has encrypted as often as it may
	WornOut          IrregularityKind = "worn-material"     // it has so often that the key is to be rotated
	StrayAliases     IrregularityKind = "stray-aliases"     // aliases lead to a key that clients do not see
	NoSystemKey      IrregularityKind = "no-system-key"     // the key that seals secrets has no row

	UnfinishedCreation    IrregularityKind = "unfinished-creation"
	AbandonedCreation     IrregularityKind = "abandoned-creation" // too old to be undone: see undoWithin
	UnfinishedRotation    IrregularityKind = "unfinished-rotation"
	UnfinishedDestruction IrregularityKind = "unfinished-destruction"
	OverdueDeletion       IrregularityKind = "overdue-deletion"
)

// Between the store and the device.
const (
	NoObject       IrregularityKind = "no-object"       // of a key that is to be used; with Name, of a system key
	SeveralObjects IrregularityKind = "several-objects" // have its id, so that none is used
	WrongObject    IrregularityKind = "wrong-object"    // it fails the proof
	WeakObject     IrregularityKind = "weak-object"     // it does not promise what a key must
	Unproved       IrregularityKind = "unproved"        // the device did not say

	DestroyedObject IrregularityKind = "destroyed-object" // the store remembers that it was destroyed
	ForgottenObject IrregularityKind = "forgotten-object" // of a key that is in the store, which does not know the material
	UnknownObject   IrregularityKind = "unknown-object"   // of a key that the store knows nothing of
	ForeignSystem   IrregularityKind = "foreign-system"   // serves another deployment, or was left by an init that was interrupted
	LeftoverObject  IrregularityKind = "leftover-object"  // of a measurement of the token
)

// leftoverLabel begins the labels of objects that only a measurement of the token makes, and destroys again.
const leftoverLabel = "strongroom/check/"

// How long what a server finishes by itself may take. A request is answered within a minute, and what it leaves unfinished is looked for once a minute.
const (
	creationTime = 5 * time.Minute
	rotationTime = handOver + 8*time.Minute
	sweepTime    = 5 * sweepEvery
)

// plain reports whether another look would say no more of it.
func (i *Irregularity) plain() bool {
	switch i.Kind {
	case AbandonedCreation, ForeignSystem, LeftoverObject, WornOut:
		return true
	case UnfinishedCreation, UnfinishedRotation, UnfinishedDestruction, OverdueDeletion:
		return !i.Late // a server that was just started may be about to finish it
	}
	return false
}

// An Inspection is what [Inspect] saw.
type Inspection struct {
	Keys      int // rows of keys
	Materials int // of those, that have a Ref
	Due       int // materials that are to be used, and system keys, which must be on the device
	Objects   int // on the device, of this program
	Proved    int // of Due, what is what the rows say
	Found     []Irregularity
}

// InspectOptions say what [Inspect] looks at.
type InspectOptions struct {
	Store  Store
	Device hsm.Inspector // nil to look at the store alone

	// Pauses are how long to wait before each further look. Requests are being answered and processes killed meanwhile: what is not there any more
	// at a later look, or something else, was only on its way. Without pauses one look decides.
	Pauses []time.Duration
}

// Inspect reads every row that belongs to a key, and, with a device, sees that it holds exactly one object for each material, that this proves to be the
// one, and that there are no others. It changes nothing, and uses keys only to open their check values. It needs memory for what the device holds and
// not for what the store does.
func Inspect(ctx context.Context, o InspectOptions) (*Inspection, error) {
	in := &inspector{InspectOptions: o, now: time.Now()}
	seen, err := in.everything(ctx)
	if err != nil {
		return nil, err
	}
	for _, pause := range o.Pauses {
		if !slices.ContainsFunc(seen.Found, func(i Irregularity) bool { return !i.plain() }) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		again, err := in.again(ctx, seen.Found)
		if err != nil {
			return nil, err
		}
		seen.Found = both(seen.Found, again)
	}
	// What was on its way at the first look was proved at a later one, or is not due any more.
	seen.Proved = seen.Due
	for _, i := range seen.Found {
		if i.Kind.of() == aboutProof {
			seen.Proved--
		}
	}
	return seen, nil
}

// What several kinds are about, of which one thing may show now the one and now the other.
const (
	aboutProof  IrregularityKind = "what a row says of the device"
	aboutOrphan IrregularityKind = "what the device has without a row"
)

// of returns what a kind is about.
func (k IrregularityKind) of() IrregularityKind {
	switch k {
	case NoObject, SeveralObjects, WrongObject, Unproved:
		return aboutProof
	case DestroyedObject, ForgottenObject, UnknownObject:
		return aboutOrphan
	}
	return k
}

// both returns those of the irregularities found now that were there before too.
func both(before, now []Irregularity) []Irregularity {
	type what struct {
		about    IrregularityKind
		key      KeyID
		material hsm.ID
		name     string
	}
	about := func(i Irregularity) what { return what{i.Kind.of(), i.Key, i.Material, i.Name} }
	was := make(map[what]bool, len(before))
	for _, i := range before {
		was[about(i)] = true
	}
	var all []Irregularity
	for _, i := range now {
		if was[about(i)] {
			all = append(all, i)
		}
	}
	return all
}

// An inspector is one inspection on its way.
type inspector struct {
	InspectOptions
	now time.Time

	holdings map[hsm.ID]*holding // nil without a device
	seen     *Inspection
}

// A holding is what the device has under an id.
type holding struct {
	hsm.Holding
	known bool // the store has a row for it
}

func (in *inspector) found(i Irregularity) { in.seen.Found = append(in.seen.Found, i) }

// survey looks at the device, before the store: then what is made meanwhile has a row and seems to have no object, and what is destroyed the other way round.
// Both are gone at the next look.
func (in *inspector) survey(ctx context.Context) error {
	if in.Device == nil {
		return nil
	}
	all, err := in.Device.Survey(ctx)
	for n := 0; n < 2 && errors.Is(err, hsm.ErrUnavailable) && ctx.Err() == nil; n++ {
		// Objects come and go while it looks, and SoftHSM may take that for an error.
		time.Sleep(100 * time.Millisecond)
		all, err = in.Device.Survey(ctx)
	}
	if err != nil {
		return err
	}
	in.holdings = make(map[hsm.ID]*holding, len(all))
	for _, h := range all {
		if !h.Canary {
			in.holdings[h.ID] = &holding{Holding: h}
		}
	}
	return nil
}

const inspectBatch = 100

// everything is the first look.
func (in *inspector) everything(ctx context.Context) (*Inspection, error) {
	in.seen = new(Inspection)
	if err := in.survey(ctx); err != nil {
		return nil, err
	}
	in.seen.Objects = len(in.holdings)
	if err := in.systemKeys(ctx); err != nil {
		return nil, err
	}
	accounts, err := list(ctx, in.Store, func(tx Tx, after string) ([]Account, error) { return tx.Accounts(after, listBatch) },
		func(a Account) string { return a.ID })
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		for after := (KeyID{}); ; {
			var ids []KeyID
			err := in.Store.View(ctx, func(tx Tx) (err error) {
				ids, err = tx.Keys(a.ID, after, inspectBatch)
				return err
			})
			if err == nil {
				err = in.keys(ctx, ids)
			}
			if err != nil {
				return nil, err
			}
			if len(ids) < inspectBatch {
				break
			}
			after = ids[len(ids)-1]
		}
		if err := in.principals(ctx, a.ID); err != nil {
			return nil, err
		}
	}
	for _, state := range []KeyState{StateCreating, StateDestroying} {
		var ids []KeyID
		err := in.Store.View(ctx, func(tx Tx) (err error) {
			ids, err = tx.KeysInState(state, time.Time{}, 1<<20)
			return err
		})
		if err == nil {
			err = in.keys(ctx, ids)
		}
		if err != nil {
			return nil, err
		}
	}
	for id, h := range in.holdings {
		if !h.known {
			if err := in.orphan(ctx, id, h); err != nil {
				return nil, err
			}
		}
	}
	return in.seen, nil
}

// again is a further look, at what was found alone.
func (in *inspector) again(ctx context.Context, found []Irregularity) ([]Irregularity, error) {
	in.now = time.Now()
	in.seen = new(Inspection)
	if err := in.survey(ctx); err != nil {
		return nil, err
	}
	if err := in.systemKeys(ctx); err != nil {
		return nil, err
	}
	keys, orphans, accounts := make(map[KeyID]bool), make(map[hsm.ID]bool), make(map[string]bool)
	for _, i := range found {
		switch i.Kind {
		case DestroyedObject, ForgottenObject, UnknownObject, ForeignSystem, LeftoverObject:
			orphans[i.Material] = true
		default:
			if !i.Key.IsZero() {
				keys[i.Key] = true
			} else if i.Kind == UnreadablePolicy {
				accounts[i.Account] = true
			}
		}
	}
	for id := range keys {
		if err := in.keys(ctx, []KeyID{id}); err != nil {
			return nil, err
		}
	}
	for account := range accounts {
		if err := in.principals(ctx, account); err != nil {
			return nil, err
		}
	}
	for id := range orphans {
		if h := in.holdings[id]; h != nil && !h.known {
			if err := in.orphan(ctx, id, h); err != nil {
				return nil, err
			}
		}
	}
	return in.seen.Found, nil
}

// keys looks at keys. Those that are not there any more are passed over.
func (in *inspector) keys(ctx context.Context, ids []KeyID) error {
	type row struct {
		key  *Key
		uses int64 // of its current material
	}
	read := func(ids []KeyID) (rows []row, err error) {
		err = in.Store.View(ctx, func(tx Tx) error {
			rows = nil
			for _, id := range ids {
				key, err := tx.Key(id)
				if isNotStored(err) {
					continue
				}
				if err != nil {
					return err
				}
				uses, err := tx.MaterialUses(key.current().ID)
				if err != nil {
					return err
				}
				rows = append(rows, row{key, uses})
			}
			return nil
		})
		return rows, err
	}
	for len(ids) > 0 {
		n := min(len(ids), inspectBatch)
		rows, err := read(ids[:n])
		if err != nil && ctx.Err() == nil {
			// One that cannot be read ends the transaction for all. Which is it?
			rows = nil
			for _, id := range ids[:n] {
				one, err := read([]KeyID{id})
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					in.found(Irregularity{Kind: UnreadableRow, Key: id, Detail: err.Error()})
				}
				rows = append(rows, one...)
			}
		} else if err != nil {
			return err
		}
		for _, r := range rows {
			if err := in.key(ctx, r.key, r.uses); err != nil {
				return err
			}
		}
		ids = ids[n:]
	}
	return nil
}

// key looks at one key, whose current material has encrypted up to uses times.
func (in *inspector) key(ctx context.Context, key *Key, uses int64) error {
	in.seen.Keys++
	about := Irregularity{Account: key.Account, Key: key.ID, State: key.State}
	found := func(kind IrregularityKind, since time.Time, format string, args ...any) {
		i := about
		i.Kind, i.Since, i.Detail = kind, since, fmt.Sprintf(format, args...)
		limit := map[IrregularityKind]time.Duration{
			UnfinishedCreation: creationTime, UnfinishedRotation: rotationTime, UnfinishedDestruction: sweepTime, OverdueDeletion: sweepTime,
		}[kind]
		i.Late = limit > 0 && in.now.Sub(since) > limit
		if kind == UnfinishedRotation && key.State == StatePendingDeletion && key.DeletionDate.Before(in.now.Add(destroyedSoon)) {
			i.Late = false // it is left unfinished: see destroyedSoon
		}
		in.found(i)
	}
	switch key.State {
	case StateCreating:
		if in.now.Sub(key.Created) > undoWithin {
			found(AbandonedCreation, key.Created, "")
		} else {
			found(UnfinishedCreation, key.Created, "")
		}
	case StateDestroying:
		since := key.DeletionDate
		if since.IsZero() {
			since = key.Created
		}
		found(UnfinishedDestruction, since, "")
	case StatePendingDeletion:
		if !key.DeletionDate.After(in.now) {
			found(OverdueDeletion, key.DeletionDate, "")
		}
	}
	switch limit := int64(DefaultSealLimit); {
	case key.State != StateEnabled:
	case uses >= limit:
		found(SpentMaterial, time.Time{}, "%d", uses)
	case uses >= limit-limit/4:
		found(WornOut, time.Time{}, "%d", uses)
	}
	if !key.State.visible() {
		aliases := 0
		err := in.Store.View(ctx, func(tx Tx) (err error) {
			aliases, err = tx.CountAliases(key.ID)
			return err
		})
		if err != nil {
			return err
		}
		if aliases > 0 {
			found(StrayAliases, time.Time{}, "%d", aliases)
		}
	} else if _, err := policy.Parse(policy.KeyPolicy, key.Policy); err != nil {
		found(UnreadablePolicy, time.Time{}, "%v", err)
	}

	for n, m := range key.Materials {
		if h := in.holdings[m.ID]; h != nil {
			h.known = true
		}
		about.Material = m.ID
		switch {
		case m.Ref != nil:
			in.seen.Materials++
			// An object of a key that is being destroyed may be gone or not.
			if in.Device != nil && key.State.visible() {
				if err := in.material(ctx, about, m.ID, m.Ref, false); err != nil {
					return err
				}
			}
		case key.State == StateCreating, key.State == StateDestroying:
		case n == 0:
			found(NoMaterial, m.Created, "")
		case n == len(key.Materials)-1:
			found(UnfinishedRotation, m.Created, "")
		default:
			found(LostMaterial, m.Created, "")
		}
	}
	return nil
}

// material sees that the device holds what a row says: one object, that proves to be the one.
func (in *inspector) material(ctx context.Context, about Irregularity, id hsm.ID, ref hsm.Ref, signer bool) error {
	found := func(kind IrregularityKind, format string, args ...any) {
		i := about
		i.Kind, i.Material, i.Detail = kind, id, fmt.Sprintf(format, args...)
		in.found(i)
	}
	in.seen.Due++
	h := in.holdings[id]
	if h == nil {
		found(NoObject, "")
		return nil
	}
	h.known = true
	have, others := h.Keys, h.Private
	if signer {
		have, others = others, have
	}
	switch {
	case have == 0 && others == 0:
		found(NoObject, "of the key pair, only the public half is there")
		return nil
	case have == 0:
		found(WrongObject, "an object of another kind is in its place")
		return nil
	case have+others > 1:
		found(SeveralObjects, "%d", have+others)
		return nil
	}
	err := in.Device.Prove(ctx, id, ref)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, hsm.ErrNoKey):
		found(WrongObject, "%v", err)
		return nil
	case err != nil:
		found(Unproved, "%v", err)
		return nil
	}
	switch lacks, err := in.Device.Promises(ctx, ref); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		found(Unproved, "what it promises is not known: %v", err)
	case lacks != "":
		found(WeakObject, "%s", lacks)
	}
	return nil
}

// systemKeys looks at the keys that serve the server itself.
func (in *inspector) systemKeys(ctx context.Context) error {
	for _, name := range []string{sealerName, signerName} {
		var k *SystemKey
		err := in.Store.View(ctx, func(tx Tx) (err error) {
			k, err = tx.SystemKey(name)
			return err
		})
		switch {
		case isNotStored(err) && name == sealerName:
			in.found(Irregularity{Kind: NoSystemKey, Name: name})
			continue
		case isNotStored(err): // the first start makes it
			continue
		case err != nil:
			return err
		}
		if h := in.holdings[k.ID]; h != nil {
			h.known = true
		}
		if k.Ref != nil && in.Device != nil {
			if err := in.material(ctx, Irregularity{Name: name}, k.ID, k.Ref, name == signerName); err != nil {
				return err
			}
		}
	}
	return nil
}

// principals looks at the policies of an account's users and roles.
func (in *inspector) principals(ctx context.Context, account string) error {
	for _, kind := range []PrincipalKind{User, Role} {
		all, err := list(ctx, in.Store, func(tx Tx, after string) ([]Principal, error) {
			return tx.Principals(account, kind, after, listBatch)
		}, func(p Principal) string { return p.Name })
		if err != nil {
			return err
		}
		for _, p := range all {
			for _, named := range p.Policies {
				if _, err := policy.Parse(policy.IdentityPolicy, named.Text); err != nil {
					in.found(Irregularity{
						Kind: UnreadablePolicy, Account: account, Name: string(kind) + "/" + p.Name, Detail: fmt.Sprintf("policy %s: %v", named.Name, err),
					})
				}
			}
		}
	}
	return nil
}

// orphan looks at an object for which no row was seen.
func (in *inspector) orphan(ctx context.Context, id hsm.ID, h *holding) error {
	i := Irregularity{Kind: UnknownObject, Material: id, Name: h.Label}
	switch rest, _ := strings.CutPrefix(h.Label, "strongroom/"); {
	case strings.HasPrefix(h.Label, leftoverLabel):
		i.Kind = LeftoverObject
		in.found(i)
		return nil
	case strings.HasPrefix(h.Label, systemLabel("")):
		// The row of one that is being made, or was a moment ago, comes before its object.
		i.Kind = ForeignSystem
	default:
		text, _, _ := strings.Cut(rest, "/")
		i.Key, _ = ParseKeyID(text)
	}
	known := false
	err := in.Store.View(ctx, func(tx Tx) error {
		i.State, i.Since = "", time.Time{}
		if _, err := tx.KeyOfMaterial(id); err == nil || !isNotStored(err) {
			known = err == nil // its row is of an account or a state that was read before it was there
			return err
		}
		key, destroyed, err := tx.Tombstone(id)
		if err == nil {
			i.Kind, i.Key, i.Since = DestroyedObject, key, destroyed
			return nil
		}
		if !isNotStored(err) {
			return err
		}
		if i.Key.IsZero() {
			return nil
		}
		row, err := tx.Key(i.Key)
		if err == nil {
			i.Kind, i.Account, i.State = ForgottenObject, row.Account, row.State
			return nil
		}
		if isNotStored(err) {
			return nil
		}
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		i.Detail = err.Error() // a row that cannot be read is told of by itself
	}
	if !known {
		in.found(i)
	}
	return nil
}

// ProveToken returns nil if the device holds the key that seals the secrets of the deployment in store, without using it otherwise. An error that is hsm.ErrNoKey
// means that the store belongs to another token.
func ProveToken(ctx context.Context, device hsm.Inspector, store Store) error {
	var sealer *SystemKey
	err := store.View(ctx, func(tx Tx) (err error) {
		sealer, err = tx.SystemKey(sealerName)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the key that seals secrets: %w", err)
	}
	return device.Prove(ctx, sealer.ID, sealer.Ref)
}
