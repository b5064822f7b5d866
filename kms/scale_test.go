package kms_test

import (
	"crypto/rand"
	"math"
	"slices"
	"testing"

	"strongroom/keyspec"
	"strongroom/kms"
)

// fill puts n keys into the store that are like one that the service made, and share its object in the token; each with ten grants, one of them to user/app. It
// returns their ids.
func (r *rig) fill(n int) []kms.KeyID {
	r.t.Helper()
	made, err := kms.ParseKeyID(r.newKey().KeyID)
	must(r.t, err)
	var ids []kms.KeyID
	must(r.t, r.store.Update(r.t.Context(), func(tx kms.Tx) error {
		model, err := tx.Key(made)
		if err != nil {
			return err
		}
		for range n {
			k := *model
			if k.ID, err = kms.ParseKeyID(kms.NewUUID()); err != nil {
				return err
			}
			k.Materials = slices.Clone(k.Materials)
			k.Materials[0].ID = kms.NewMaterialID()
			if err := tx.InsertKey(&k); err != nil {
				return err
			}
			ids = append(ids, k.ID)
			for i := range 10 {
				g := &kms.Grant{ID: rand.Text() + rand.Text(), Key: k.ID, Grantee: "arn:aws:iam::111122223333:user/app", Issuer: account, Operations: 1 | 2 | 1<<12}
				if i > 0 {
					g.Grantee = "arn:aws:iam::111122223333:user/other"
				}
				if err := tx.InsertGrant(g); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	return ids
}

// With 20,000 keys and 200,000 grants in the store, a request costs no more allocations than with ten, and, like there, no look into the store: the second
// time it is made, whether the key policy allows it or a grant. A million are measured by test/bench.
func TestScale(t *testing.T) {
	type costs struct{ allocations, views float64 }
	measure := func(n int) map[string]costs {
		r := newRig(t, nil)
		app := r.add("arn:aws:iam::111122223333:user/app")
		ids := r.fill(n)
		s, store := r.running()
		all := make(map[string]costs)
		for name, who := range map[string]kms.Caller{"by the key policy": root, "by a grant": app} {
			for _, some := range []int{1, 10} { // the same key each time, or keys from all over the store
				var keys []string
				var blobs [][]byte
				for i := range some {
					id := ids[i*len(ids)/some].String()
					keys = append(keys, id)
					resp, err := s.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: id, Plaintext: make([]byte, 32)})
					must(t, err)
					blobs = append(blobs, resp.CiphertextBlob)
				}
				for operation, do := range map[string]func(i int) error{
					"Decrypt": func(i int) error {
						return second(s.Decrypt(t.Context(), who, &kms.DecryptRequest{CiphertextBlob: blobs[i%some]}))
					},
					"GenerateDataKeyPair": func(i int) error {
						resp, err := s.GenerateDataKeyPair(t.Context(), who, &kms.GenerateDataKeyPairRequest{KeyID: keys[i%some], KeyPairSpec: keyspec.P256})
						if err == nil {
							clear(resp.PrivateKeyPlaintext)
						}
						return err
					},
				} {
					i := 0
					each := func() {
						i++
						must(t, do(i))
					}
					for range 2 * some {
						each()
					}
					c := costs{allocations: math.Inf(1)}
					c.views = float64(store.viewsOf(func() {
						for range 3 { // what runs in the background allocates too, now and then
							c.allocations = min(c.allocations, testing.AllocsPerRun(40, each))
						}
					}))
					what := operation + " " + name
					if some > 1 {
						what += ", several keys"
					}
					all[what] = c
				}
			}
		}
		return all
	}
	few, many := measure(10), measure(20_000)
	for what, c := range many {
		t.Logf("%s: %v allocations with 10 keys, %v with 20,000", what, few[what].allocations, c.allocations)
		if c.allocations > few[what].allocations+1 {
			t.Errorf("%s: %v allocations with 10 keys, %v with 20,000", what, few[what].allocations, c.allocations)
		}
		if c.views != 0 || few[what].views != 0 {
			t.Errorf("%s: the store is read %v times with 10 keys, %v with 20,000", what, few[what].views, c.views)
		}
	}
}
