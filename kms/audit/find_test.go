package audit

import (
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s, MaxSize: 1500})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, code := range []string{"", "AccessDenied", "NotFoundException", "", "ThrottlingException"} {
		r := typical()
		r.Time = start.Add(time.Duration(i) * time.Hour)
		r.Name = []string{"Encrypt", "Decrypt"}[i%2]
		r.ErrorCode = code
		r.RequestID = string(rune('a' + i))
		if i == 3 {
			r.Identity = Identity{Type: "Root", ARN: "arn:aws:iam::111122223333:root"}
			r.Resources = nil
			r.RequestParameters = []byte(`{"keyId":"alias/mine"}`)
		}
		if i == 4 {
			r.RequestParameters = []byte(`{"keyId":17}`)
		}
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	files, _ := Files(dir)
	if len(files) < 3 {
		t.Errorf("%d files", len(files))
	}
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{Since: start}, "abcde"},
		{Filter{Since: start.Add(time.Hour), Until: start.Add(3 * time.Hour)}, "bc"},
		{Filter{Operation: "Decrypt"}, "bd"},
		{Filter{Operation: "Decryp"}, ""},
		{Filter{Principal: "Alice"}, "abce"},
		{Filter{Principal: "AKIAIOSFODNN7EXAMPLE"}, "abce"},
		{Filter{Principal: "arn:aws:iam::111122223333:root"}, "d"},
		{Filter{Key: "alias/mine"}, "d"},
		{Filter{Key: "1234abcd"}, "abce"},
		{Filter{Key: "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"}, "abce"},
		{Filter{Since: start, Outcome: OK}, "ad"},
		{Filter{Outcome: Denied}, "b"},
		{Filter{Outcome: Failed}, "bce"},
		{Filter{Outcome: "wrong"}, ""},
		{Filter{Operation: "Encrypt", Outcome: Failed, Principal: "Alice", Since: start.Add(3 * time.Hour)}, "e"},
	} {
		got := ""
		for e, err := range Find(files, c.f) {
			if err != nil {
				t.Fatal(err)
			}
			got += e.RequestID
		}
		if got != c.want {
			t.Errorf("%+v: got %q, want %q", c.f, got, c.want)
		}
	}
	if n := count(t, dir, "Checkpoint"); n != 1 {
		t.Errorf("%d checkpoints", n)
	}
	for e, err := range Find(files, Filter{Operation: "Decrypt", Outcome: Denied}) {
		if err != nil || e.Principal != "arn:aws:iam::111122223333:user/Alice" || e.Sequence != 3 || e.ErrorCode != "AccessDenied" || e.EventType != APICall ||
			e.KeyID != "1234abcd-12ab-34cd-56ef-1234567890ab" || !strings.HasSuffix(e.KeyARN, e.KeyID) || !strings.Contains(string(e.Line), `"sequence":3,`) {
			t.Errorf("%+v, %v", e, err)
		}
	}

	// A bad line is told, and the next ones follow.
	addTo(t, files[0], "x\n")
	addTo(t, files[len(files)-1], "torn")
	good, bad := 0, 0
	for _, err := range Find(files, Filter{}) {
		if err != nil {
			bad++
			if f, ok := err.(*Finding); !ok || f.File != files[0] {
				t.Error(err)
			}
		} else {
			good++
		}
	}
	if good != 6 || bad != 1 {
		t.Errorf("%d good, %d bad", good, bad)
	}
}
