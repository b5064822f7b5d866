package attest_test

import (
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// present is when the documents of these tests are made. It is not in whole milliseconds, as the present never is.
var present = time.Date(2026, 5, 4, 3, 2, 1, 987654321, time.UTC)

// account is whose requests bring documents.
const account = "111122223333"

// root is the root that is trusted as "test". What it makes is the same each time.
var root = sync.OnceValue(func() *attesttest.Root {
	r, err := attesttest.NewRoot(attesttest.RootOptions{Seed: []byte("attest_test"), Since: present.Add(-time.Hour)})
	if err != nil {
		panic(err)
	}
	return r
})

// recipients are holders of keys, by their bits.
var recipients = map[int]func() *attesttest.Recipient{
	2048: sync.OnceValue(func() *attesttest.Recipient { return newRecipient(2048) }),
	3072: sync.OnceValue(func() *attesttest.Recipient { return newRecipient(3072) }),
	4096: sync.OnceValue(func() *attesttest.Recipient { return newRecipient(4096) }),
}

func newRecipient(bits int) *attesttest.Recipient {
	r, err := attesttest.NewRecipient(bits)
	if err != nil {
		panic(err)
	}
	return r
}

// statement is what a plain document says.
func statement() attesttest.Statement {
	return attesttest.Statement{Time: present, PublicKey: recipients[2048]().PublicKey()}
}

// newVerifier returns a verifier that trusts the root as "test", and the root of AWS.
func newVerifier(t testing.TB) *attest.Verifier {
	t.Helper()
	return newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test"), attest.AWSRoot()}})
}

func newVerifierWith(t testing.TB, o attest.Options) *attest.Verifier {
	t.Helper()
	o.AllowTestRoots = true
	v, err := attest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// document returns the document of a statement.
func document(t testing.TB, s attesttest.Statement) []byte {
	t.Helper()
	raw, err := root().Document(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// caseNamed returns one of the cases.
func caseNamed(t testing.TB, name string) attesttest.Case {
	t.Helper()
	for _, c := range attesttest.Cases() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no case %q", name)
	return attesttest.Case{}
}

// caseDocuments are the documents of all cases by their names, made once.
var caseDocuments = sync.OnceValue(func() map[string][]byte {
	all := make(map[string][]byte)
	for _, c := range attesttest.Cases() {
		raw, err := root().DocumentOf(c, statement())
		if err != nil {
			panic(c.Name + ": " + err.Error())
		}
		all[c.Name] = raw
	}
	return all
})

// documentOf returns the document of a case.
func documentOf(c attesttest.Case) []byte { return caseDocuments()[c.Name] }

// reason returns why a document was refused: 0 if it was not, and 255 if it was for no reason that there is.
func reason(err error) attest.Reason {
	if err == nil {
		return 0
	}
	if f, ok := errors.AsType[*attest.Fault](err); ok {
		return f.Reason
	}
	return 255
}

// verdict says a reason, or that there was none.
func verdict(r attest.Reason) string {
	if r == 0 {
		return "accepted"
	}
	return r.String()
}

// window returns when all certificates of a document hold.
func window(t testing.TB, d *attest.Document) (since, until time.Time) {
	t.Helper()
	for i, der := range append(d.CABundle[:len(d.CABundle):len(d.CABundle)], d.Certificate) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 || c.NotBefore.After(since) {
			since = c.NotBefore
		}
		if i == 0 || c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return since, until
}
