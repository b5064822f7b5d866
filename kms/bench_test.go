package kms_test

import (
	"context"
	"testing"

	"strongroom/keyspec"
	"strongroom/kms"
)

// benchRig is a rig that trusts its memory, as a server does.
func benchRig(b *testing.B) *rig {
	r := newRig(b, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	b.Cleanup(func() { stop(); <-done })
	return r
}

// bench runs f alone and from as many goroutines as there are processors.
func bench(b *testing.B, f func() error) {
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

var benchContext = map[string]string{"tenant": "alice", "purpose": "benchmark"}

func BenchmarkEncrypt(b *testing.B) {
	r := benchRig(b)
	key := r.newKey().KeyID
	plaintext := make([]byte, 32)
	bench(b, func() error {
		return second(r.Encrypt(context.Background(), root, &kms.EncryptRequest{KeyID: key, Plaintext: plaintext, EncryptionContext: benchContext}))
	})
}

func BenchmarkDecrypt(b *testing.B) {
	r := benchRig(b)
	blob := r.encrypt(r.newKey().KeyID, "0123456789abcdef0123456789abcdef", benchContext)
	bench(b, func() error {
		return second(r.Decrypt(context.Background(), root, &kms.DecryptRequest{CiphertextBlob: blob, EncryptionContext: benchContext}))
	})
}

func BenchmarkGenerateDataKey(b *testing.B) {
	r := benchRig(b)
	key := r.newKey().KeyID
	bench(b, func() error {
		return second(r.GenerateDataKey(context.Background(), root, &kms.GenerateDataKeyRequest{KeyID: key, KeySpec: "AES_256", EncryptionContext: benchContext}))
	})
}

func BenchmarkGenerateDataKeyPair(b *testing.B) {
	r := benchRig(b)
	key := r.newKey().KeyID
	for _, spec := range []keyspec.Spec{keyspec.P256, keyspec.Ed25519} {
		b.Run(spec.String(), func(b *testing.B) {
			bench(b, func() error {
				return second(r.GenerateDataKeyPair(context.Background(), root, &kms.GenerateDataKeyPairRequest{KeyID: key, KeyPairSpec: spec, EncryptionContext: benchContext}))
			})
		})
	}
}
