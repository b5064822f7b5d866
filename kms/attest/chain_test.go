package attest_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// accept verifies a document and requires that it is accepted.
func accept(t testing.TB, v *attest.Verifier, raw []byte, account string, now time.Time) *attest.Attestation {
	t.Helper()
	a, err := v.Verify(raw, account, now)
	if err != nil {
		t.Fatalf("at %v: %v", now, err)
	}
	return a
}

// refuse verifies a document and requires that it is refused for one reason.
func refuse(t testing.TB, v *attest.Verifier, raw []byte, account string, now time.Time, want attest.Reason) {
	t.Helper()
	if _, err := v.Verify(raw, account, now); reason(err) != want {
		t.Errorf("at %v: %v, want %s", now, err, want)
	}
}

// fastest returns the least time of several runs.
func fastest(f func()) time.Duration {
	least := time.Hour
	for range 7 {
		start := time.Now()
		f()
		least = min(least, time.Since(start))
	}
	return least
}

// Of five signatures, one is left.
func TestChainCachedIsCheaper(t *testing.T) {
	raw := document(t, statement())
	first := fastest(func() { accept(t, newVerifier(t), raw, account, present) })
	v := newVerifier(t)
	accept(t, v, raw, account, present)
	again := fastest(func() { accept(t, v, raw, account, present) })
	if 2*again > first {
		t.Errorf("it took %v at first and %v again", first, again)
	}
	t.Logf("%v at first, %v again", first, again)
}

// Other documents of one chain find it. Another signer under the same CAs does not.
func TestChainIdentity(t *testing.T) {
	v := newVerifier(t)
	s := statement()
	for i := range 3 {
		s.Nonce = []byte{byte(i)}
		accept(t, v, document(t, s), account, present)
	}
	if v.Known() != 1 {
		t.Errorf("%d chains are known, want 1", v.Known())
	}
	s.ModuleID = "i-1" // which is in the name of the signer
	raw := document(t, s)
	d, err := attest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if v.Knows(d, present) {
		t.Error("the chain of another signer is known")
	}
	accept(t, v, raw, account, present)
	if v.Known() != 2 {
		t.Errorf("%d chains are known, want 2", v.Known())
	}
}

// What is refused leaves nothing behind, and what is known lets nothing pass that would have been refused.
func TestChainOfCases(t *testing.T) {
	warm := newVerifier(t)
	accept(t, warm, document(t, statement()), account, present)
	for _, c := range attesttest.Cases() {
		if c.Reason != attest.BadChain && c.Reason != attest.Untrusted {
			continue
		}
		raw := documentOf(c)
		refuse(t, warm, raw, account, present, c.Reason)
		refuse(t, warm, raw, account, present, c.Reason)
		if warm.Known() != 1 {
			t.Fatalf("%s: %d chains are known, want 1", c.Name, warm.Known())
		}
	}
}

// A chain ends with the first of its certificates, here with the root.
func TestChainExpires(t *testing.T) {
	end := present.Add(2 * time.Minute).Truncate(time.Second)
	r, err := attesttest.NewRoot(attesttest.RootOptions{Seed: []byte("ends"), Since: end.AddDate(-30, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.Document(statement())
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{r.Anchor("test")}})
	accept(t, v, raw, account, present)
	accept(t, v, raw, account, end)
	refuse(t, v, raw, account, end.Add(time.Nanosecond), attest.BadChain)
	if v.Known() != 0 {
		t.Errorf("%d chains are known after the end of the only one", v.Known())
	}
	refuse(t, v, raw, account, end.Add(time.Minute), attest.BadChain)
	accept(t, v, raw, account, end)
	rep := v.Examine(raw, account, present)
	from, until, ok := rep.Window()
	if !ok || !from.Equal(present.Truncate(time.Millisecond).Add(-attest.MaxAhead)) || !until.Equal(end) {
		t.Errorf("it can be used from %v to %v, want until %v", from, until, end)
	}
}

// A chain is not known for a time before it began. The documents of it are younger, but clocks differ.
func TestChainBegins(t *testing.T) {
	v := newVerifier(t)
	d := accept(t, v, document(t, statement()), account, present).Document
	since, until := window(t, d)
	for _, c := range []struct {
		at   time.Time
		want bool
	}{
		{since, true}, {until, true}, {since.Add(-time.Nanosecond), false}, {since, false},
	} {
		if got := v.Knows(d, c.at); got != c.want {
			t.Errorf("it is known at %v: %v, want %v", c.at, got, c.want)
		}
	}
}

// A server's clock may be behind that of the certificates, by as much as that of documents.
func TestChainWithClockBehind(t *testing.T) {
	for _, behind := range []time.Duration{2 * time.Second, 30 * time.Second, attest.MaxAhead} {
		accept(t, newVerifier(t), document(t, statement()), account, present.Truncate(time.Millisecond).Add(-behind))
	}
}

// A verifier remembers so many, and forgets the one that was used least recently.
func TestChainsAreBounded(t *testing.T) {
	v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test")}, Chains: 3})
	var all []*attest.Document
	for i := range 5 {
		s := statement()
		s.ModuleID = fmt.Sprintf("i-%d", i)
		all = append(all, accept(t, v, document(t, s), account, present).Document)
		if i >= 2 && !v.Knows(all[0], present) { // a use each time
			t.Errorf("the first chain is forgotten after %d", i+1)
		}
	}
	if v.Known() != 3 {
		t.Errorf("%d chains are known, want 3", v.Known())
	}
	for i, want := range []bool{true, false, false, true, true} {
		if got := v.Knows(all[i], present); got != want {
			t.Errorf("chain %d is known: %v, want %v", i, got, want)
		}
	}
}

// That a chain is known does not widen what its root is trusted for.
func TestChainOfLimitedAnchor(t *testing.T) {
	const other = "444455556666"
	a, b := root().Anchor("a"), root().Anchor("b")
	a.Accounts, a.Kinds = []string{account}, []attest.Kind{attest.Enclave}
	b.Accounts, b.Kinds = []string{other}, []attest.Kind{attest.NitroTPM}
	v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{a, b}})
	s := statement()
	s.ModuleID = "i-0"
	enclave := document(t, s)
	s.Kind = attest.NitroTPM
	tpm := document(t, s)
	for range 2 {
		if got := accept(t, v, enclave, account, present).Root; got != "a" {
			t.Errorf("the enclave's leads to %s, want a", got)
		}
		refuse(t, v, enclave, other, present, attest.Untrusted)
		refuse(t, v, tpm, account, present, attest.Untrusted)
		refuse(t, v, enclave, "", present, attest.Untrusted)
		if got := accept(t, v, tpm, other, present).Root; got != "b" {
			t.Errorf("the NitroTPM's leads to %s, want b", got)
		}
	}
	if v.Known() != 1 {
		t.Errorf("%d chains are known, want 1: the documents have the same", v.Known())
	}
}

// Many at once come to the verdicts of one.
func TestChainsConcurrently(t *testing.T) {
	v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test")}, Chains: 2})
	good := make([][]byte, 4)
	for i := range good {
		s := statement()
		s.ModuleID = fmt.Sprintf("i-%d", i)
		good[i] = document(t, s)
	}
	bad := documentOf(caseNamed(t, "signer-bad-signature"))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 12 {
				raw := good[(g+i)%len(good)]
				if _, err := v.Verify(raw, account, present); err != nil {
					t.Error(err)
				}
				if _, err := v.Verify(bad, account, present); reason(err) != attest.BadChain {
					t.Errorf("%v, want %s", err, attest.BadChain)
				}
			}
		})
	}
	wg.Wait()
	if v.Known() > 2 {
		t.Errorf("%d chains are known, want at most 2", v.Known())
	}
}
