package kms_test

import (
	"context"
	"fmt"
	"testing"

	"strongroom/kms"
)

// BenchmarkDecryptWithGrants: what grants on a key cost who uses it, without the device's part.
func BenchmarkDecryptWithGrants(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
		same bool
	}{{"none", 0, false}, {"50000-of-others", 50_000, false}, {"50000-of-the-caller", 50_000, true}} {
		b.Run("grants="+c.name, func(b *testing.B) {
			r := newRig(b, nil)
			key := r.newKey()
			id, err := kms.ParseKeyID(key.KeyID)
			must(b, err)
			user := r.add("arn:aws:iam::111122223333:user/app")
			must(b, r.store.Update(b.Context(), func(tx kms.Tx) error {
				for i := range c.n + 1 {
					g := &kms.Grant{ID: fmt.Sprintf("%064x", i), Key: id, Grantee: "arn:aws:iam::111122223333:user/other", Issuer: account,
						Operations: 1, Constraint: kms.GrantConstraint{Subset: map[string]string{"tenant": "a", "n": fmt.Sprintf("number %d", i)}}}
					if c.same || i == c.n {
						g.Grantee = user.Principal
					}
					if err := tx.InsertGrant(g); err != nil {
						return err
					}
				}
				return nil
			}))
			encryptionContext := map[string]string{"tenant": "a", "n": fmt.Sprintf("number %d", c.n)}
			blob := r.encrypt(key.KeyID, "secret", encryptionContext)
			ctx, stop := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { defer close(done); r.Run(ctx) }()
			defer func() { stop(); <-done }()
			b.ReportAllocs()
			for b.Loop() {
				_, err := r.Decrypt(b.Context(), user, &kms.DecryptRequest{CiphertextBlob: blob, EncryptionContext: encryptionContext})
				must(b, err)
			}
		})
	}
}
