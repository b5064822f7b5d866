package kms_test

import (
	"context"
	"runtime"
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

// bench runs f for one client, and for eight.
func bench(b *testing.B, f func() error) {
	b.Run("c=1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("c=8", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
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

// BenchmarkGate is what it takes until a key may be used, and no device: to find it in memory, with its policy and those of who asks, and to decide.
func BenchmarkGate(b *testing.B) {
	r := benchRig(b)
	key := r.newKey().KeyID
	for _, caller := range []struct {
		name string
		who  kms.Caller
	}{
		{"root", root},
		{"user", r.add("arn:aws:iam::111122223333:user/bench", allow("kms:*", "*"))},
	} {
		b.Run("caller="+caller.name, func(b *testing.B) {
			bench(b, func() error { return r.Open(context.Background(), caller.who, key, benchContext) })
		})
	}
}

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
		b.Run("spec="+spec.String(), func(b *testing.B) {
			bench(b, func() error {
				return second(r.GenerateDataKeyPair(context.Background(), root, &kms.GenerateDataKeyPairRequest{KeyID: key, KeyPairSpec: spec, EncryptionContext: benchContext}))
			})
		})
	}
}
