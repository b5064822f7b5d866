package policy

import (
	"fmt"
	"strings"
	"testing"
)

// bigKeyPolicy returns a key policy of almost MaxSize bytes. The default statement stands first, so that every other must be asked too.
func bigKeyPolicy() string {
	var b strings.Builder
	b.WriteString(`{"Version":"2012-10-17","Statement":[{"Sid":"root","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}`)
	for i := 0; b.Len() < MaxSize-500; i++ {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&b, `,{"Sid":"use %d","Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:role/app-%d","arn:aws:iam::444455556666:root"]},`+
				`"Action":["kms:Encrypt","kms:Decrypt","kms:ReEncrypt*","kms:GenerateDataKey*","kms:DescribeKey"],"Resource":"*"}`, i, i)
		case 1:
			fmt.Fprintf(&b, `,{"Sid":"context %d","Effect":"Allow","Principal":{"AWS":"*"},"Action":["kms:Decrypt","kms:GenerateDataKey*"],"Resource":"*",`+
				`"Condition":{"StringEquals":{"kms:EncryptionContext:Department":"department-%d","kms:CallerAccount":"111122223333"}}}`, i, i)
		case 2:
			fmt.Fprintf(&b, `,{"Sid":"deny %d","Effect":"Deny","Principal":{"AWS":"*"},"Action":["kms:*"],"Resource":"*",`+
				`"Condition":{"StringLike":{"kms:EncryptionContext:Department":"secret-%d-*"},"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}}`, i, i)
		}
	}
	b.WriteString(`]}`)
	return b.String()
}

// identityPolicy returns an identity policy of about six kilobytes, IAM's limit for managed policies, of which none but the last statement of
// the last one allows.
func identityPolicy(n int) string {
	var b strings.Builder
	b.WriteString(`{"Version":"2012-10-17","Statement":[`)
	for i := range 20 {
		fmt.Fprintf(&b, `{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject","s3:ListBucket"],"Resource":["arn:aws:s3:::bucket-%d","arn:aws:s3:::bucket-%d/${aws:username}/*"]},`, i, i)
		fmt.Fprintf(&b, `{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:eu-central-1:111122223333:key/%08d-*"},`, i)
	}
	if n == 9 {
		b.WriteString(`{"Effect":"Allow","Action":["kms:Decrypt","kms:Encrypt"],"Resource":"arn:aws:kms:*:111122223333:key/*"},`)
	}
	b.WriteString(`{"Effect":"Deny","Action":"kms:ScheduleKeyDeletion","Resource":"*"}]}`)
	return b.String()
}

func mustParse(t testing.TB, kind Kind, text string) *Document {
	t.Helper()
	d, err := Parse(kind, text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func benchQuestion() Question {
	return Question{
		Caller: genCallers[0], Action: "kms:Decrypt", Resource: keyOne, Owner: ours,
		Context: facts{"kms:encryptioncontext:department": {"secret-hunting"}, "kms:calleraccount": {ours}, "aws:sourceip": {"203.0.113.9"},
			"aws:username": {"alice"}, "aws:securetransport": {"true"}},
	}
}

func BenchmarkDecide(b *testing.B) {
	small := Policies{Key: mustParse(b, KeyPolicy, `{"Version":"2012-10-17","Statement":[{"Sid":"root","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}`),
		Identity: []Named{{"p", mustParse(b, IdentityPolicy, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:Decrypt","Resource":"*"}]}`)}}}
	big := Policies{Key: mustParse(b, KeyPolicy, bigKeyPolicy())}
	for i := range 10 {
		big.Identity = append(big.Identity, Named{fmt.Sprint("p", i), mustParse(b, IdentityPolicy, identityPolicy(i))})
	}
	q := benchQuestion()
	for _, bb := range []struct {
		name string
		p    Policies
	}{{"default", small}, {"32kB+10", big}} {
		b.Run("policies="+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Decide(q, bb.p); d.Reason != AllowedByIdentityPolicy {
					b.Fatal(d)
				}
			}
		})
	}
}

func BenchmarkExplain(b *testing.B) {
	p := Policies{Key: mustParse(b, KeyPolicy, bigKeyPolicy())}
	q := benchQuestion()
	b.ReportAllocs()
	for b.Loop() {
		Explain(q, p)
	}
}

// BenchmarkHardest decides by a key policy with the most expensive pattern that fits, and an encryption context of the largest size.
func BenchmarkHardest(b *testing.B) {
	for _, h := range hardest {
		b.Run("pattern="+strings.ReplaceAll(h.name, " ", "-"), func(b *testing.B) {
			p := Policies{Key: mustParse(b, KeyPolicy, whenever(`{"StringLike":{"kms:EncryptionContext:a":"`+h.pattern+`"}}`))}
			q := benchQuestion()
			q.Context = facts{"kms:encryptioncontext:a": {h.value}}
			b.ReportAllocs()
			for b.Loop() {
				if Decide(q, p).Allowed {
					b.Fatal("allowed")
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	text := bigKeyPolicy()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		mustParse(b, KeyPolicy, text)
	}
}

// TestAllocations holds the common case to none: the decision is on the path of every request.
func TestAllocations(t *testing.T) {
	p := Policies{Key: mustParse(t, KeyPolicy, bigKeyPolicy()), Identity: []Named{{"p", mustParse(t, IdentityPolicy, identityPolicy(9))}}}
	q := benchQuestion()
	if n := testing.AllocsPerRun(100, func() { Decide(q, p) }); n != 0 {
		t.Errorf("Decide allocates %v times", n)
	}
}
