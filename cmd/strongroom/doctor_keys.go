package main

import (
	"context"
	"errors"
	"fmt"

	"strongroom/hsm"
	"strongroom/kms"
)

// examineKeys compares the rows of keys with one another, and with what is in the token.
func (d *doctor) examineKeys(ctx context.Context, p *part) func() {
	if d.db == nil || d.deployment == nil {
		p.skip("there is no store to read keys from")
		return nil
	}
	o := kms.InspectOptions{Store: d.db, Pauses: quietPauses}
	if d.served {
		o.Pauses = servedPauses
	}
	var w *watched
	switch {
	case d.token == nil:
		p.skip("whether the token holds them: it is not open")
	case !d.ours:
		p.skip("whether the token holds them: it is not the deployment's, or cannot be used")
	default:
		w = &watched{token: d.token}
		o.Device = w
	}
	in, err := kms.Inspect(ctx, o)
	switch {
	case ctx.Err() != nil:
		p.fail("keys-unread", "", fmt.Sprintf("not all keys could be looked at in %v", keysLimit), "", "")
		return nil
	case w != nil && w.hung != nil:
		p.fail("token-hangs", d.token.Info().String(), w.hung.Error(), "no key can be used", "look at the HSM, at the network on the way to it, and at the vendor's client on this host")
	case errors.Is(err, hsm.ErrUnavailable):
		p.fail("token-use", d.token.Info().String(), fmt.Sprintf("the token does not say what it holds: %v", err), "no key can be used", "look at the HSM")
	case err != nil:
		p.fail("keys-unread", d.storePath, err.Error(), "keys that cannot be read cannot be used", restore)
	}
	if err != nil {
		return nil
	}
	now := *d
	if served, _, err := d.whoServes(); err == nil {
		now.served = served // what was unfinished a moment ago may be waiting for a start
	}
	now.tell(p, in)
	switch {
	case o.Device == nil:
		p.ok("rows of %s with %s", count(in.Keys, "key"), count(in.Materials, "key material"))
	case in.Proved < in.Due:
		p.skip("%s with %s, and the system's own: %d of %d were not proved; %s in the token", count(in.Keys, "key"),
			count(in.Materials, "key material"), in.Due-in.Proved, in.Due, count(in.Objects, "object"))
	default:
		p.ok("%s with %s, and the system's own: %d of %d proved by their check values; %s in the token", count(in.Keys, "key"),
			count(in.Materials, "key material"), in.Proved, in.Due, count(in.Objects, "object"))
	}
	return nil
}

// tell turns what an inspection found into findings.
func (d *doctor) tell(p *part, in *kms.Inspection) {
	foreign := make(map[string]bool)
	for _, i := range in.Found {
		if i.Kind == kms.ForeignSystem {
			foreign[i.Name] = true
		}
	}
	// A deployment that has been served has both. One that was not leaves one at an init that was interrupted.
	shared := len(foreign) > 1
	for _, i := range in.Found {
		d.tellOne(p, i, shared)
	}
}

func (d *doctor) tellOne(p *part, i kms.Irregularity, shared bool) {
	check, where := string(i.Kind), "key "+i.Key.String()
	if i.Key.IsZero() {
		where = i.Name
	}
	late := d.served && i.Late
	object := fmt.Sprintf("object %s, labelled %s", i.Material, i.Name)
	material := fmt.Sprintf("key material %s", i.Material)
	if i.Name != "" && i.Key.IsZero() && i.Material != (hsm.ID{}) {
		where = "system key " + i.Name
		material = fmt.Sprintf("the object %s", i.Material)
	}
	const lost = "what was encrypted under it cannot be decrypted any more"
	const bring = "restore the token from its own backup; if it was destroyed there on purpose, schedule the key's deletion"

	switch i.Kind {
	case kms.UnreadableRow:
		p.fail(check, where, "its row cannot be read: "+i.Detail, "the key cannot be used", restore)
	case kms.UnreadablePolicy:
		if i.Key.IsZero() {
			p.fail(check, i.Account+": "+i.Name, i.Detail, "nothing that this principal asks for is decided", "strongroom policy put "+d.flags()+", with a policy that can be read")
			return
		}
		p.fail(check, where, "its policy cannot be read: "+i.Detail, "every request for the key is refused", "strongroom policy reset-key "+i.Key.String()+" "+d.flags())
	case kms.NoMaterial:
		p.fail(check, where, "it is "+string(i.State)+" and has nothing to encrypt with", "the key cannot be used", restore)
	case kms.LostMaterial:
		p.fail(check, where, material+" has no name in the token, and is not the newest", lost, restore)
	case kms.SpentMaterial:
		p.fail(check, where, fmt.Sprintf("its key material has encrypted %s times, which is as often as is safe", i.Detail), "it encrypts no more; it decrypts as ever",
			"look in the server's log for why it was not rotated by itself; strongroom key rotate "+i.Key.String())
	case kms.WornOut:
		p.note(check, where, fmt.Sprintf("its key material has encrypted %s times, more than three quarters of what is safe", i.Detail), "it is rotated by itself when it encrypts next", "")
	case kms.StrayAliases:
		p.warn(check, where, fmt.Sprintf("it is %s, and %s aliases lead to it", i.State, i.Detail), "nobody can use, move or delete these aliases", "they go when the key does")
	case kms.NoSystemKey:
		p.fail(check, "system key "+i.Name, "it has no row", "no access key can be used, and serve does not start", restore)

	case kms.UnfinishedCreation:
		if late {
			p.warn(check, where, "its creation was not finished, and not undone", "an object may lie in the token for nothing", "look in the server's log for why; the next start undoes it")
		} else {
			d.unfinished(p, check, where, "it is being made", "its creation was interrupted; nobody was told of the key", "the next start undoes that")
		}
	case kms.AbandonedCreation:
		p.warn(check, where, "it has been in state Creating since "+when(i.Since), "it is not undone by itself, because a backup that was restored can look like this: the key may have been used since",
			"restore a newer backup of the store; if the token holds no object labelled strongroom/"+i.Key.String()+"/0, nothing is lost")
	case kms.UnfinishedRotation:
		if late {
			p.warn(check, where, "its rotation was begun on "+when(i.Since)+" and is not finished", "it still encrypts under its last key material", "look in the server's log for why; it tries again each minute")
		} else {
			d.unfinished(p, check, where, "it is being rotated", "its rotation was interrupted; it encrypts under its last key material", "a server that runs finishes that")
		}
	case kms.UnfinishedDestruction:
		if late {
			p.warn(check, where, "it is being destroyed since "+when(i.Since)+", and its objects may still be in the token", "who relies on its being destroyed is wrong", "look in the server's log for why; it tries again each minute")
		} else {
			d.unfinished(p, check, where, "it is being destroyed", "its destruction was interrupted", "a server that runs finishes that")
		}
	case kms.OverdueDeletion:
		if late {
			p.warn(check, where, "its waiting period ended on "+when(i.Since)+", and it is not destroyed", "who relies on its being destroyed is wrong", "look in the server's log for why; it tries again each minute")
		} else {
			d.unfinished(p, check, where, "its waiting period is over", "its waiting period ended on "+when(i.Since), "a server that runs destroys it; until then it can be saved")
		}

	case kms.NoObject:
		what := "the token holds no object for " + material
		if i.Detail != "" {
			what += ": " + i.Detail
		}
		p.fail(check, where, what, lost, bring)
	case kms.SeveralObjects:
		p.fail(check, where, fmt.Sprintf("the token holds %s objects for %s", i.Detail, material), "none of them is used, because nobody knows which is the one: requests are refused",
			"with the tools of the HSM find out which is newer and who made it, and destroy that one")
	case kms.WrongObject:
		p.fail(check, where, fmt.Sprintf("the object in the token is not %s: %s", material, i.Detail), lost+", and it is refused for use", "see who changed the token, or the store; restore the one that was changed from its backup")
	case kms.WeakObject:
		p.fail(check, where, fmt.Sprintf("%s is not what a key must be: %s", material, i.Detail), "it may leave the token, or serve others", "rotate or replace the key: encrypt anew under another one, and delete this one")
	case kms.Unproved:
		p.fail(check, where, fmt.Sprintf("%s could not be proved: %s", material, i.Detail), "requests for it are refused", "look at the HSM, and run this again")

	case kms.DestroyedObject:
		p.warn(check, object, fmt.Sprintf("it is in the token, and key %s was destroyed on %s", i.Key, when(i.Since)), "who relies on its being destroyed is wrong: with the token, what it encrypted can be decrypted",
			"was the token restored from a backup? Then destroy the object with the tools of the HSM")
	case kms.ForgottenObject:
		p.warn(check, object, fmt.Sprintf("it is in the token, and key %s, which is %s, does not know it", i.Key, i.State), "if the store was restored from a backup, what was encrypted under the object since cannot be decrypted",
			"restore a newer backup of the store. If there was never another store, the object serves nothing, and may be destroyed with the tools of the HSM")
	case kms.UnknownObject:
		if shared {
			p.note(check, object, "it is in the token, and not in this store", "it seems to be of another deployment, which uses this token too", "")
			return
		}
		p.warn(check, object, "it is in the token, and not in this store", "if the store was restored from a backup, or is not the right one, the key cannot be used, and nor can what it encrypted",
			"find the store that it is of. If there is none, the object serves nothing, and may be destroyed with the tools of the HSM")
	case kms.ForeignSystem:
		p.note(check, object, "it is in the token, and not in this store", "it is of another deployment that uses this token too, or was left by an init that was interrupted", "")
	case kms.LeftoverObject:
		p.note(check, object, "a measurement of the token left it behind", "it serves nothing", "strongroom hsm check "+d.flags()+" destroys what earlier ones have left")
	default:
		p.warn(check, where, i.Detail, "", "")
	}
}

// unfinished tells of what a server that runs finishes, or the next start.
func (d *doctor) unfinished(p *part, check, where, running, stopped, next string) {
	if d.served {
		p.note(check, where, running, "", "")
	} else {
		p.note(check, where, stopped, next, "")
	}
}
