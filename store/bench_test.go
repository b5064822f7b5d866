package store_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"strongroom/kms"
	"strongroom/store"
)

// bench returns a store with 20,000 keys, each with a tag, some of their ids, and a context as a request has it.
func bench(b *testing.B) (*store.DB, []kms.KeyID, context.Context) {
	d := open(b, create(b))
	insertAccounts(b, d)
	var keys []*kms.Key
	var ids []kms.KeyID
	for range 20_000 {
		k := newKey(kms.StateEnabled)
		k.Tags = map[string]string{"team": "payments"}
		keys = append(keys, k)
		ids = append(ids, k.ID)
	}
	insertKeys(b, d, keys...)
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	b.ReportAllocs()
	return d, ids, ctx
}

// One key with its tags and materials.
func BenchmarkReadKey(b *testing.B) {
	d, ids, ctx := bench(b)
	read := func(b *testing.B, n int) {
		err := d.View(ctx, func(tx kms.Tx) error { _, err := tx.Key(ids[n%len(ids)]); return err })
		if err != nil {
			b.Error(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			read(b, n)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for n := 0; pb.Next(); n++ {
				read(b, n)
			}
		})
	})
}

// One small change, durable.
func BenchmarkCommit(b *testing.B) {
	d, ids, ctx := bench(b)
	for n := 0; b.Loop(); n++ {
		update := func(tx kms.Tx) error { return tx.SetDescription(ids[n%len(ids)], strconv.Itoa(n)) }
		if err := d.Update(ctx, update); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGeneration(b *testing.B) {
	d, _, ctx := bench(b)
	for b.Loop() {
		if _, err := d.Generation(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// A key with 50,000 grants to one grantee, which is as many as there may be: half without constraint, half each with its own.
func BenchmarkGrants(b *testing.B) {
	d, ids, ctx := bench(b)
	key := ids[0]
	const grants = 50_000
	one := map[string]string{"record": "7"}
	update(b, d, func(tx kms.Tx) error {
		for n := range grants {
			g := newGrant(key, alice)
			g.Operations = 2
			if n%2 == 1 {
				g.Constraint.Equals = map[string]string{"record": strconv.Itoa(n)}
			}
			if n == 40_000 {
				g.Operations = 4
			}
			if err := tx.InsertGrant(g); err != nil {
				return err
			}
		}
		return nil
	})
	match := (&kms.Grant{Constraint: kms.GrantConstraint{Equals: one}}).Match()
	find := func(match kms.GrantMatch, operation kms.GrantOperations, limit, found int) func(kms.Tx) error {
		return func(tx kms.Tx) error {
			all, err := tx.FindGrants(key, alice, match, operation, limit)
			if len(all) != found {
				b.Errorf("found %d, want %d", len(all), found)
			}
			return err
		}
	}
	for _, bench := range []struct {
		name string
		do   func(kms.Tx) error
	}{
		{"find/constraint", find(match, 2, 10, 1)},
		{"find/first of many", find(kms.GrantMatch{}, 2, 10, 10)},
		{"find/one operation in many", find(kms.GrantMatch{}, 4, 10, 1)},
		{"find/none in many", find(kms.GrantMatch{}, 1, 10, 0)},
		{"find/none", find(kms.GrantMatch{1}, 2, 10, 0)},
		{"count", func(tx kms.Tx) error { _, err := tx.CountGrants(key); return err }},
		{"list 100", func(tx kms.Tx) error { _, err := tx.Grants(key, alice, "8", 100); return err }},
		{"read key", func(tx kms.Tx) error { _, err := tx.Key(key); return err }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := d.View(ctx, bench.do); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("insert", func(b *testing.B) {
		for b.Loop() {
			if err := d.Update(ctx, func(tx kms.Tx) error { return tx.InsertGrant(newGrant(key, alice)) }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a node tells of a minute: the last use of 1000 keys and 1000 credentials.
func BenchmarkRecordUse(b *testing.B) {
	d, ids, ctx := bench(b)
	credentials := make(map[string]time.Time)
	uses := make([]kms.KeyUse, 1000)
	update(b, d, func(tx kms.Tx) error {
		for n := range 1000 {
			id := "ASIA" + strconv.Itoa(n)
			credentials[id] = time.Time{}
			if err := tx.InsertCredential(newSession(id, exact())); err != nil {
				return err
			}
		}
		return nil
	})
	now := time.Now()
	for b.Loop() {
		now = now.Add(time.Second)
		for id := range credentials {
			credentials[id] = now
		}
		for n := range uses {
			uses[n] = kms.KeyUse{Key: ids[n], Operation: "Decrypt", Time: now, EventID: ids[n].String(), RequestID: ids[n].String()}
		}
		if err := d.Update(ctx, func(tx kms.Tx) error { return tx.RecordUse(credentials, uses) }); err != nil {
			b.Fatal(err)
		}
	}
}
