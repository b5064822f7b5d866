package worker_test

import (
	"fmt"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/hsm/worker"
)

// BenchmarkSeal compares a token in workers with the same one in this process.
func BenchmarkSeal(b *testing.B) {
	c := newToken(b)
	for _, copies := range []bool{false, true} {
		b.Run(fmt.Sprintf("copies=%v", copies), func(b *testing.B) {
			c.SessionCopies = copies
			benchmarkSeal(b, c)
		})
	}
}

func benchmarkSeal(b *testing.B, c pkcs11.Config) {
	plaintext := make([]byte, 138)
	run := func(b *testing.B, d hsm.Device) {
		_, ref := made(b, d)
		for _, clients := range []int{1, 8} {
			b.Run(fmt.Sprintf("c=%d", clients), func(b *testing.B) {
				b.ReportAllocs()
				if clients == 1 {
					for b.Loop() {
						if _, err := d.Seal(b.Context(), ref, make([]byte, 0, 256), plaintext, aad); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.SetParallelism(clients / 2)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := d.Seal(b.Context(), ref, make([]byte, 0, 256), plaintext, aad); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
	b.Run("in=process", func(b *testing.B) {
		token, err := pkcs11.Open(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		defer token.Close()
		run(b, token)
	})
	b.Run("in=workers", func(b *testing.B) {
		d, _ := open(b, worker.Config{Token: c})
		waitReady(b, d, 2)
		run(b, d)
	})
}
