package audit

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	for _, sync := range []bool{true, false} {
		for _, c := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("sync=%v/c=%d", sync, c), func(b *testing.B) { benchmarkAppend(b, sync, c) })
		}
	}
}

func benchmarkAppend(b *testing.B, fsync bool, c int) {
	d := &countingDisk{skip: !fsync}
	l, err := Open(Options{Dir: b.TempDir(), Signer: newSigner(b), Log: quiet, disk: d})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	d.syncs.Store(0)
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range c {
		wg.Go(func() {
			r := typical()
			for n.Add(1) <= int64(b.N) {
				if err := l.Append(b.Context(), r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(d.syncs.Load())/float64(b.N), "syncs/op")
}

// BenchmarkBare is what Append cannot be faster than: one write and one fdatasync.
func BenchmarkBare(b *testing.B) {
	f, err := osDisk{}.create(b.TempDir() + "/f")
	if err != nil {
		b.Fatal(err)
	}
	line, _ := typical().append(nil)
	line = append(appendTrailer(line, newUUID(), Head{}), '\n')
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := f.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	r := typical()
	b.ReportAllocs()
	var buf, line []byte
	var h Head
	for b.Loop() {
		buf, _ = r.append(buf[:0])
		line, h = appendLine(line[:0], buf, [16]byte{}, h)
	}
	b.SetBytes(int64(len(line)))
}

func BenchmarkVerify(b *testing.B) {
	dir, signer := b.TempDir(), newSigner(b)
	l, err := Open(Options{Dir: dir, Signer: signer, Log: quiet, disk: &countingDisk{skip: true}})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				if err := l.Append(b.Context(), typical()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	files, err := Files(dir)
	if err != nil {
		b.Fatal(err)
	}
	size := int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.Run("what=verify", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			r, err := Verify(&signer.key.PublicKey, files, VerifyOptions{})
			if err != nil || r.Finding != nil {
				b.Fatal(err, r.Finding)
			}
		}
	})
	b.Run("what=find", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			for range Find(files, Filter{Operation: "Decrypt"}) {
			}
		}
	})
}
