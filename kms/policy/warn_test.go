package policy

import (
	"fmt"
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	digest := strings.Repeat("ab", 48)
	const pcr0, pcr1, root = "kms:RecipientAttestation:PCR0", "KMS:recipientattestation:pcr1", "strongroom:RecipientAttestation:Root"
	for _, test := range []struct {
		effect, condition string
		want              []string // the beginning of each
	}{
		{"Deny", fmt.Sprintf(`{"StringNotEquals":{%q:%q}}`, pcr0, digest), nil},
		{"Allow", fmt.Sprintf(`{"StringEqualsIgnoreCase":{%q:%q,%q:%q}}`, pcr0, strings.ToUpper(digest), pcr1, digest), nil},
		{"Allow", fmt.Sprintf(`{"StringLike":{%q:"ab*"},"Null":{%q:"false"}}`, pcr0, pcr1), nil},
		{"Allow", fmt.Sprintf(`{"StringEquals":{%q:"${aws:PrincipalTag/image}"}}`, pcr0), nil},
		{"Allow", `{"StringEquals":{"kms:EncryptionContext:a":"AB","strongroom:RecipientAttestation:Root":"aws"}}`, nil},
		{"Allow", fmt.Sprintf(`{"StringEquals":{%q:%q}}`, pcr0, digest[:64]), []string{`statement #1: StringEquals ` + pcr0 + `: "abab`}},
		{"Allow", fmt.Sprintf(`{"StringEquals":{%q:["0x%s",%q]}}`, pcr0, digest, digest), []string{`statement #1: StringEquals ` + pcr0 + `: "0xab`}},
		{"Allow", fmt.Sprintf(`{"StringEquals":{%q:%q}}`, pcr1, strings.ToUpper(digest)), []string{`statement #1: StringEquals ` + pcr1 + `: "ABAB`}},
		{"Deny", fmt.Sprintf(`{"StringNotEquals":{%q:%q,%q:%q}}`, pcr0, digest, pcr1, digest), []string{"statement #1 denies only what differs in all 2 things"}},
		{"Deny", fmt.Sprintf(`{"StringNotEquals":{%q:%q,%q:"aws"}}`, pcr0, digest, root), []string{"statement #1 denies only what differs in all 2 things"}},
		{"Deny", fmt.Sprintf(`{"StringNotEqualsIfExists":{%q:%q,%q:%q}}`, pcr0, digest, pcr1, digest), []string{"statement #1 denies only what differs in all 2 things"}},
		{"Deny", fmt.Sprintf(`{"StringNotEquals":{%q:["aws","lab"]}}`, root), nil},
		{"Deny", fmt.Sprintf(`{"ForAnyValue:StringNotEquals":{%q:%q}}`, pcr0, digest), []string{"statement #1: ForAnyValue:StringNotEquals " + pcr0 + ": does not hold without a document"}},
		{"Allow", fmt.Sprintf(`{"StringEqualsIfExists":{%q:%q}}`, pcr0, digest), []string{"statement #1: StringEqualsIfExists " + pcr0 + ": holds without a document too"}},
		{"Allow", fmt.Sprintf(`{"ForAllValues:StringEquals":{%q:"aws"}}`, root), []string{"statement #1: ForAllValues:StringEquals " + root + ": holds without a document too"}},
		{"Allow", fmt.Sprintf(`{"StringNotEquals":{%q:%q}}`, pcr0, digest), []string{"statement #1: StringNotEquals " + pcr0 + ": holds without a document too"}},
		{"Deny", fmt.Sprintf(`{"StringNotLike":{%q:"0xab*"}}`, pcr0), []string{`statement #1: StringNotLike ` + pcr0 + `: "0xab*" is not`}},
		{"Deny", fmt.Sprintf(`{"StringNotLike":{%q:"ab??"}}`, pcr0), []string{`statement #1: StringNotLike ` + pcr0 + `: "ab??" is not`}},
		{"Deny", fmt.Sprintf(`{"StringNotLike":{%q:%q}}`, pcr0, digest[:94]+"??"), nil},
		{"Deny", fmt.Sprintf(`{"StringNotLike":{%q:%q}}`, pcr0, digest+"*"), nil},
		{"Deny", fmt.Sprintf(`{"StringNotLike":{%q:%q}}`, pcr0, digest+"?*"), []string{`statement #1: StringNotLike ` + pcr0}},
		{"Deny", fmt.Sprintf(`{"StringNotLike":{%q:"AB*"}}`, pcr0), []string{`statement #1: StringNotLike ` + pcr0 + `: "AB*" has capital`}},
		{"Deny", fmt.Sprintf(`{"StringEquals":{%q:%q,%q:%q}}`, pcr0, digest, pcr1, digest), nil},
	} {
		d, err := Parse(IdentityPolicy, fmt.Sprintf(`{"Version":"2012-10-17","Statement":{"Effect":%q,"Action":"kms:*","Resource":"*","Condition":%s}}`, test.effect, test.condition))
		if err != nil {
			t.Fatal(err)
		}
		got := d.Warnings()
		ok := len(got) == len(test.want)
		for i := range got {
			ok = ok && strings.HasPrefix(got[i], test.want[i])
		}
		if !ok {
			t.Errorf("%s %s:\n got %q\nwant %q", test.effect, test.condition, got, test.want)
		}
	}
}
