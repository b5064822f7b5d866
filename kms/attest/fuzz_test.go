package attest_test

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"sync"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// fuzzSeeds are what fuzzing begins with, made once.
var fuzzSeeds struct {
	sync.Once
	root      *attesttest.Root
	documents [][]byte
}

// fuzzRoot returns the root and the documents to begin with, of every case. They are the same in every process, since the invariants know them; and the
// root depends on those that are genuine, so that what a fuzzer has kept from another version of the cases is not of this root.
func fuzzRoot(f *testing.F) (*attesttest.Root, [][]byte) {
	f.Helper()
	fuzzSeeds.Do(func() { fuzzSeeds.root, fuzzSeeds.documents = makeFuzzSeeds(f) })
	return fuzzSeeds.root, fuzzSeeds.documents
}

func makeFuzzSeeds(f *testing.F) (*attesttest.Root, [][]byte) {
	f.Helper()
	key := realDocuments(f)[0]
	parsed, err := attest.Parse(key.raw)
	if err != nil {
		f.Fatal(err)
	}
	s := attesttest.Statement{Time: present, PublicKey: parsed.PublicKey}
	documents := func(seed []byte, genuine bool) (*attesttest.Root, [][]byte) {
		r, err := attesttest.NewRoot(attesttest.RootOptions{Seed: seed, Since: present.Add(-time.Hour)})
		if err != nil {
			f.Fatal(err)
		}
		var all [][]byte
		for _, c := range attesttest.Cases() {
			if genuine && c.Reason != 0 && c.Reason < attest.Debug {
				continue
			}
			raw, err := r.DocumentOf(c, s)
			if err != nil {
				f.Fatal(err)
			}
			if len(raw) <= attest.MaxSize { // which has a test of its own
				all = append(all, raw)
			}
		}
		return r, all
	}
	_, genuine := documents([]byte("fuzz"), true)
	seed := sha256.Sum256(bytes.Join(genuine, nil))
	r, all := documents(seed[:], false)
	for _, d := range realDocuments(f) {
		all = append(all, d.raw)
	}
	return r, append(all, readReal(f, "payload-3-bytes-missing.bin"))
}

// splice puts something in the place of a part of a document. Fuzzing does so, rather than with whole documents, because a fuzzer spends its time in making
// small what is large.
func splice(documents [][]byte, which, at, cut uint16, instead []byte) []byte {
	raw := documents[int(which)%len(documents)]
	from := min(int(at), len(raw))
	to := min(from+int(cut), len(raw))
	return slices.Concat(raw[:from], instead, raw[to:])
}

// FuzzParse reads anything. What can be read cannot with a byte less or more, keeps to all limits, and can be read with the tag that it may have as well.
func FuzzParse(f *testing.F) {
	_, documents := fuzzRoot(f)
	for i, raw := range documents {
		f.Add(uint16(i), uint16(0), uint16(0), []byte(nil))
		if len(raw) < 200 {
			f.Add(uint16(0), uint16(0), uint16(1<<16-1), raw)
		}
	}
	f.Fuzz(func(t *testing.T, which, at, cut uint16, instead []byte) {
		raw := splice(documents, which, at, cut, instead)
		d, err := attest.Parse(raw)
		if err != nil {
			if d != nil || reason(err) != attest.Malformed || len(err.Error()) > 200 {
				t.Fatalf("%v and %v", d, err)
			}
			return
		}
		if _, err := attest.Parse(raw[:len(raw)-1]); err == nil {
			t.Error("it can be read without its last byte")
		}
		for _, more := range []byte{0x00, 0xf6, 0xff} {
			if _, err := attest.Parse(append(bytes.Clone(raw), more)); err == nil {
				t.Errorf("it can be read with a byte %#02x after it", more)
			}
		}
		other := append([]byte{0xd2}, raw...)
		if raw[0] == 0xd2 {
			other = raw[1:]
		}
		if _, err := attest.Parse(other); err != nil && len(other) <= attest.MaxSize {
			t.Errorf("with the tag or without it: %v", err)
		}
		checkLimits(t, d)
	})
}

// checkLimits requires what every document promises.
func checkLimits(t *testing.T, d *attest.Document) {
	t.Helper()
	registers := map[attest.Kind]int{attest.Enclave: 32, attest.NitroTPM: 24}[d.Kind]
	if n := len(d.ModuleID); n < 1 || n > 256 {
		t.Errorf("a module id of %d bytes", n)
	}
	if ms := d.Time.UnixMilli(); ms < 1 || d.Time.Year() > 9999 {
		t.Errorf("a time of %d", ms)
	}
	if n := len(d.PCRs); n < 1 || n > registers {
		t.Errorf("%d registers", n)
	}
	for i, value := range d.PCRs {
		if i < 0 || i >= registers || len(value) != 48 {
			t.Errorf("register %d of %d bytes", i, len(value))
		}
	}
	if n := len(d.CABundle); n < 1 || n > 8 {
		t.Errorf("%d certificates", n)
	}
	for _, der := range append(d.CABundle[:len(d.CABundle):len(d.CABundle)], d.Certificate) {
		if n := len(der); n < 1 || n > 1024 {
			t.Errorf("a certificate of %d bytes", n)
		}
	}
	if n := max(len(d.PublicKey), len(d.UserData), len(d.Nonce)); n > 1024 {
		t.Errorf("a value of %d bytes", n)
	}
}

// FuzzVerify verifies documents in which something was put in the place of something else, at the time that they claim. Nobody but AWS and the root of these
// tests has the keys, so what is genuine is what they have signed, byte for byte; and it is genuine to a verifier that has seen nothing before as well.
func FuzzVerify(f *testing.F) {
	r, documents := fuzzRoot(f)
	anchors := []attest.Anchor{r.Anchor("test"), attest.AWSRoot()}
	v := newVerifierWith(f, attest.Options{Anchors: anchors})
	signed := make(map[string]bool)
	for i, raw := range documents {
		if d, err := attest.Parse(raw); err == nil && v.Examine(raw, account, d.Time).Verified() {
			signed[string(d.Payload())] = true
			f.Add(uint16(i), uint16(0), uint16(0), []byte(nil))
			f.Add(uint16(i), uint16(7919*i%len(raw)), uint16(i%3), []byte{byte(i)})
		}
	}
	if len(signed) < 50 {
		f.Fatalf("only %d of %d documents are genuine", len(signed), len(documents))
	}
	f.Fuzz(func(t *testing.T, which, at, cut uint16, instead []byte) {
		raw := splice(documents, which, at, cut, instead)
		d, err := attest.Parse(raw)
		if err != nil {
			if _, err := v.Verify(raw, account, present); reason(err) != attest.Malformed {
				t.Errorf("it cannot be parsed, and %v", err)
			}
			return
		}
		report := v.Examine(raw, account, d.Time)
		a, err := v.Verify(raw, account, d.Time)
		if report.Accepted() != (err == nil) || err != nil && report.Faults[0].Reason != reason(err) {
			t.Fatalf("%v, and examined %v", err, report.Faults)
		}
		if !report.Verified() {
			return
		}
		if !signed[string(d.Payload())] {
			t.Errorf("nobody has signed this: %x", d.Payload())
		}
		if fresh := newVerifierWith(t, attest.Options{Anchors: anchors}); !fresh.Examine(raw, account, d.Time).Verified() {
			t.Error("it is genuine only to a verifier that knows its chain")
		}
		if err == nil {
			if _, err := a.Seal([]byte("secret")); err != nil {
				t.Errorf("its key was accepted: %v", err)
			}
		}
	})
}
