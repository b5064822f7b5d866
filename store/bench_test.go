package store_test

import (
	"context"
	"strconv"
	"testing"

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
