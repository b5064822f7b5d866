package policy

import (
	"runtime"
	"strings"
	"testing"
)

// What a document is said to take is about what it takes.
func TestSize(t *testing.T) {
	actions := strings.Repeat(`"kms:De*", `, 2000) + `"kms:Encrypt"`
	costly := strings.Repeat(`"arn:aws:kms:*:1?1122223333:key/*", `, 90) + `"*"`
	values := strings.Repeat(`"value of some length", `, 1000) + `"x"`
	for name, text := range map[string]string{
		"short":      `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}`,
		"actions":    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":[` + actions + `],"Resource":"*"}]}`,
		"resources":  `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":[` + costly + `]}]}`,
		"conditions": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"StringLike":{"aws:PrincipalTag/a":[` + values + `]}}}]}`,
	} {
		const copies = 50
		var documents [copies]*Document
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		for i := range documents {
			d, err := Parse(KeyPolicy, strings.Clone(text))
			if err != nil {
				t.Fatal(name, err)
			}
			documents[i] = d
		}
		takes := float64(heap()-before) / copies
		says := float64(documents[0].Size())
		runtime.KeepAlive(&documents)
		t.Logf("%s: %d bytes of text take %.0f, said to be %.0f", name, len(text), takes, says)
		if says < takes*0.6 || says > takes*2 {
			t.Errorf("%s: %d bytes of text take %.0f, and are said to take %.0f", name, len(text), takes, says)
		}
	}
}
