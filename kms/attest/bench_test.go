package attest_test

import (
	"testing"
	"time"

	"strongroom/kms/attest"
)

// BenchmarkVerifyFirst verifies a document whose chain is not known: five signatures.
func BenchmarkVerifyFirst(b *testing.B) {
	raw := document(b, statement())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newVerifier(b).Verify(raw, account, present); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyCached verifies a document whose chain is known: one signature.
func BenchmarkVerifyCached(b *testing.B) {
	v := newVerifier(b)
	raw := document(b, statement())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(raw, account, present); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefuseStale refuses a document that is too old: no signature.
func BenchmarkRefuseStale(b *testing.B) {
	v := newVerifier(b)
	raw := document(b, statement())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(raw, account, present.Add(time.Hour)); reason(err) != attest.Stale {
			b.Fatal(err)
		}
	}
}

// BenchmarkSeal seals a data key to RSA-2048.
func BenchmarkSeal(b *testing.B) {
	a, err := newVerifier(b).Verify(document(b, statement()), account, present)
	if err != nil {
		b.Fatal(err)
	}
	key := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Seal(key); err != nil {
			b.Fatal(err)
		}
	}
}
