package store_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

func testUsageSince(t *testing.T, a, b kms.Store) {
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetUsageSince(exact()), kms.ErrNotStored)
		return tx.InsertDeployment(&kms.Deployment{ID: "old"})
	})
	since := exact()
	for i := range 2 {
		update(t, a, func(tx kms.Tx) error { return tx.SetUsageSince(since.Add(time.Duration(i) * time.Hour)) })
		view(t, b, func(tx kms.Tx) error {
			d, err := tx.Deployment()
			same(t, d.UsageSince, since)
			return err
		})
	}
}

func testSystemKeys(t *testing.T, a, b kms.Store) {
	made := &kms.SystemKey{Name: "access-keys", ID: newMaterialID(), Ref: hsm.Ref("ref")}
	fresh := &kms.SystemKey{Name: "audit", ID: newMaterialID()}
	update(t, a, func(tx kms.Tx) error {
		_, err := tx.SystemKey(made.Name)
		want(t, err, kms.ErrNotStored)
		return errors.Join(tx.InsertSystemKey(made), tx.InsertSystemKey(fresh))
	})
	check := func() {
		t.Helper()
		view(t, b, func(tx kms.Tx) error {
			for _, k := range []*kms.SystemKey{made, fresh} {
				got, err := tx.SystemKey(k.Name)
				want(t, err, nil)
				same(t, got, k)
			}
			return nil
		})
	}
	check()
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertSystemKey(&kms.SystemKey{Name: made.Name, ID: newMaterialID()}), kms.ErrConflict)
		want(t, tx.SetSystemKeyRef(made.Name, hsm.Ref("other")), kms.ErrConflict)
		want(t, tx.SetSystemKeyRef("none", hsm.Ref("other")), kms.ErrNotStored)
		for _, ref := range []hsm.Ref{nil, make(hsm.Ref, 257)} {
			if err := tx.SetSystemKeyRef(fresh.Name, ref); err == nil || errors.Is(err, kms.ErrConflict) {
				t.Errorf("a ref of %d bytes: %v", len(ref), err)
			}
		}
		if tx.InsertSystemKey(&kms.SystemKey{Name: "x", ID: newMaterialID(), Ref: make(hsm.Ref, 257)}) == nil {
			t.Error("a ref of impossible size was accepted")
		}
		return nil
	})
	check()
	update(t, a, func(tx kms.Tx) error { return tx.SetSystemKeyRef(fresh.Name, hsm.Ref("later")) })
	fresh.Ref = hsm.Ref("later")
	check()
}

func testUse(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, l := newKey(kms.StateEnabled), newKey(kms.StateDisabled)
	insertKeys(t, a, k, l)
	c := newSession("ASIA", exact())
	update(t, a, func(tx kms.Tx) error { return tx.InsertCredential(c) })
	view(t, b, func(tx kms.Tx) error {
		_, err := tx.KeyUse(k.ID)
		want(t, err, kms.ErrNotStored)
		return nil
	})
	now := exact()
	use := func(key kms.KeyID, what string, minutes int) kms.KeyUse {
		return kms.KeyUse{Key: key, Operation: what, Time: now.Add(time.Duration(minutes) * time.Minute), EventID: "e-" + what, RequestID: "r-" + what}
	}
	for _, step := range []struct {
		minutes int
		uses    []kms.KeyUse
		used    int // the credential
		k, l    string
	}{
		{5, []kms.KeyUse{use(k.ID, "Encrypt", 5)}, 5, "Encrypt", ""},
		{5, []kms.KeyUse{use(k.ID, "Same", 5), use(newID(), "Gone", 9), use(l.ID, "Decrypt", 1)}, 5, "Encrypt", "Decrypt"},
		{3, []kms.KeyUse{use(k.ID, "Earlier", 4)}, 5, "Encrypt", "Decrypt"},
		{7, []kms.KeyUse{use(k.ID, "A", 7), use(k.ID, "B", 9), use(k.ID, "C", 8)}, 7, "B", "Decrypt"},
		{7, nil, 7, "B", "Decrypt"},
	} {
		update(t, a, func(tx kms.Tx) error {
			return tx.RecordUse(map[string]time.Time{c.ID: now.Add(time.Duration(step.minutes) * time.Minute), "AKIAGONE": now}, step.uses)
		})
		view(t, b, func(tx kms.Tx) error {
			got, err := tx.Credential(c.ID)
			same(t, got.LastUsed, now.Add(time.Duration(step.used)*time.Minute))
			want(t, err, nil)
			for key, operation := range map[kms.KeyID]string{k.ID: step.k, l.ID: step.l} {
				u, err := tx.KeyUse(key)
				if operation == "" {
					want(t, err, kms.ErrNotStored)
					continue
				}
				want(t, err, nil)
				expected := use(key, operation, map[string]int{"Encrypt": 5, "Decrypt": 1, "B": 9}[operation])
				same(t, u, &expected)
			}
			return nil
		})
	}
}

func testEvents(t *testing.T, a, b kms.Store) {
	events := func(limit int) (all []kms.Event) {
		view(t, b, func(tx kms.Tx) (err error) {
			all, err = tx.Events(limit)
			return err
		})
		return all
	}
	same(t, len(events(10)), 0)
	bodies := func(all []kms.Event) []string { return names(all, func(e kms.Event) string { return string(e.Body) }) }
	last := int64(-1)
	for _, s := range []kms.Store{a, b} {
		update(t, s, func(tx kms.Tx) error {
			if tx.InsertEvent(nil) == nil {
				t.Error("stored an event without body")
			}
			return errors.Join(tx.InsertEvent([]byte("1")), tx.InsertEvent([]byte("2")))
		})
		update(t, s, func(tx kms.Tx) error { return tx.InsertEvent([]byte("\x00\xff")) })
		undone := errors.New("undone")
		want(t, s.Update(t.Context(), func(tx kms.Tx) error { tx.InsertEvent([]byte("never")); return undone }), undone)
		update(t, s, func(tx kms.Tx) error { return tx.InsertEvent([]byte("4")) })

		all := events(10)
		same(t, bodies(all), []string{"1", "2", "\x00\xff", "4"})
		same(t, bodies(events(2)), []string{"1", "2"})
		same(t, len(events(0)), 0)
		same(t, len(events(-1)), 0)
		for _, e := range all { // also after the table was emptied, and by another handle
			if e.Sequence <= last {
				t.Errorf("event %d comes after %d", e.Sequence, last)
			}
			last = e.Sequence
		}
		update(t, s, func(tx kms.Tx) error { return tx.DeleteEvents(all[1].Sequence) })
		same(t, events(10), all[2:])
		update(t, s, func(tx kms.Tx) error {
			return errors.Join(tx.DeleteEvents(all[1].Sequence), tx.DeleteEvents(all[3].Sequence), tx.DeleteEvents(all[3].Sequence))
		})
		same(t, len(events(10)), 0)
	}
}

// While some write, one that reads what there is and deletes up to the last of it gets every event once, and those of each writer in their order.
func testEventsTaken(t *testing.T, a, b kms.Store) {
	const writers, each = 4, 40
	var writing sync.WaitGroup
	for i := range writers {
		s := a
		if i%2 == 1 {
			s = b
		}
		writing.Go(func() {
			for n := range each {
				err := s.Update(context.Background(), func(tx kms.Tx) error { return tx.InsertEvent([]byte(fmt.Sprint(i, " ", n))) })
				want(t, err, nil)
			}
		})
	}
	next := make([]int, writers)
	last, taken := int64(-1), 0
	for deadline := time.Now().Add(time.Minute); taken < writers*each && time.Now().Before(deadline); {
		var all []kms.Event
		view(t, a, func(tx kms.Tx) (err error) {
			all, err = tx.Events(7)
			return err
		})
		for _, e := range all {
			var writer, n int
			if _, err := fmt.Sscan(string(e.Body), &writer, &n); err != nil {
				t.Fatal(err)
			}
			if n != next[writer] || e.Sequence <= last {
				t.Errorf("event %d after %d: of writer %d, number %d in place of %d", e.Sequence, last, writer, n, next[writer])
			}
			next[writer], last = n+1, e.Sequence
			taken++
		}
		if len(all) > 0 {
			update(t, b, func(tx kms.Tx) error { return tx.DeleteEvents(last) })
		}
	}
	writing.Wait()
	same(t, taken, writers*each)
}

// What nobody remembers is stored like all else, and is no change to the generation; the rest of its transaction is.
func testQuiet(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)
	now := exact()
	update(t, a, func(tx kms.Tx) error {
		return errors.Join(
			tx.InsertCredential(newSession("ASIA0", now)), tx.InsertCredential(newSession("ASIA1", now)),
			tx.InsertCredential(newSession("ASIA2", now.Add(time.Hour))))
	})
	minutes := 0
	for name, quiet := range map[string]struct {
		do, check func(tx kms.Tx) error
	}{
		"RecordUse": {func(tx kms.Tx) error {
			used := now.Add(time.Duration(minutes) * time.Minute)
			return tx.RecordUse(map[string]time.Time{"ASIA2": used}, []kms.KeyUse{{Key: k.ID, Operation: "Encrypt", Time: used}})
		}, func(tx kms.Tx) error {
			used := now.Add(time.Duration(minutes) * time.Minute)
			c, err := tx.Credential("ASIA2")
			want(t, err, nil)
			same(t, c.LastUsed, used)
			u, err := tx.KeyUse(k.ID)
			same(t, u.Time, used)
			return err
		}},
		"InsertEvent": {func(tx kms.Tx) error {
			return tx.InsertEvent([]byte(strconv.Itoa(minutes)))
		}, func(tx kms.Tx) error {
			all, err := tx.Events(10)
			same(t, string(all[len(all)-1].Body), strconv.Itoa(minutes))
			return err
		}},
		"SetMaterialUses": {func(tx kms.Tx) error {
			n, err := tx.MaterialUses(k.Materials[0].ID)
			return errors.Join(err, tx.SetMaterialUses(k.Materials[0].ID, n, int64(minutes+1)))
		}, func(tx kms.Tx) error {
			n, err := tx.MaterialUses(k.Materials[0].ID)
			same(t, n, int64(minutes+1))
			return err
		}},
		"DeleteEvents": {func(tx kms.Tx) error {
			return errors.Join(tx.InsertEvent([]byte("x")), tx.DeleteEvents(1<<62))
		}, func(tx kms.Tx) error {
			all, err := tx.Events(10)
			same(t, len(all), 0)
			return err
		}},
		"DeleteExpired": {func(tx kms.Tx) error {
			_, err := tx.DeleteExpired(now.Add(time.Millisecond), 1)
			return err
		}, func(tx kms.Tx) error {
			all, err := tx.Credentials(builder, "", 10)
			same(t, len(all), 3-min(2, minutes))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			generation := func() int64 {
				g, err := b.Generation(t.Context())
				want(t, err, nil)
				return g
			}
			minutes = 1
			before := generation()
			update(t, a, quiet.do)
			same(t, generation(), before)
			view(t, b, quiet.check)

			minutes = 2
			update(t, a, func(tx kms.Tx) error { return errors.Join(quiet.do(tx), tx.SetDescription(k.ID, name)) })
			between := generation()
			if between == before {
				t.Error("the generation is the same though the description of a key has changed")
			}
			view(t, b, quiet.check)

			minutes = 3
			update(t, a, func(tx kms.Tx) error { return errors.Join(tx.SetDescription(k.ID, ""), quiet.do(tx)) })
			if generation() == between {
				t.Error("the generation is the same though the description of a key has changed")
			}
			view(t, b, quiet.check)
		})
	}
}

func testAuditAnchor(t *testing.T, a, b kms.Store) {
	view(t, a, func(tx kms.Tx) error {
		_, err := tx.AuditAnchor()
		want(t, err, kms.ErrNotStored)
		return nil
	})
	for i := range 3 {
		anchor := &kms.AuditAnchor{Log: "log", Sequence: uint64(10 + i), Hash: [32]byte{byte(i)}, File: 1 + i}
		update(t, a, func(tx kms.Tx) error { return tx.SetAuditAnchor(anchor) })
		view(t, b, func(tx kms.Tx) error {
			got, err := tx.AuditAnchor()
			same(t, got, anchor)
			return err
		})
	}
}
