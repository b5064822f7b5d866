package policy

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestFormat(t *testing.T) {
	in := `{"Version":"2012-10-17","Id":"a \"b\"","Statement":[{"Effect":"Allow","Principal":"*","Action":["kms:A","kms:B"],"Resource":"*"},` +
		`{"Effect":"Deny","NotPrincipal":{"AWS":["111122223333","arn:aws:iam::111122223333:user/a"]},"Action":"kms:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":false}}}]}`
	want := `{
  "Version" : "2012-10-17",
  "Id" : "a \"b\"",
  "Statement" : [ {
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "*"
    },
    "Action" : [ "kms:A", "kms:B" ],
    "Resource" : "*"
  }, {
    "Effect" : "Deny",
    "NotPrincipal" : {
      "AWS" : [ "arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:user/a" ]
    },
    "Action" : "kms:*",
    "Resource" : "*",
    "Condition" : {
      "Bool" : {
        "aws:SecureTransport" : false
      }
    }
  } ]
}`
	if _, err := Parse(KeyPolicy, in); err != nil {
		t.Fatal(err)
	}
	got := Format(in, "aws")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := Format(got, "aws"); again != want {
		t.Errorf("formatted again it is\n%s", again)
	}
	if got := Format("{", "aws"); got != "{" {
		t.Errorf("what is no policy became %q", got)
	}
}

// TestFormatKeepsTheMeaning: for every document of the cases, all but the short forms of principals is as before.
func TestFormatKeepsTheMeaning(t *testing.T) {
	for _, c := range loadCases(t) {
		if len(c.Key) == 0 {
			continue
		}
		formatted := Format(string(c.Key), "aws")
		if _, err := Parse(KeyPolicy, formatted); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		var before, after map[string]any
		json.Unmarshal(c.Key, &before)
		if err := json.Unmarshal([]byte(formatted), &after); err != nil {
			t.Fatal(err)
		}
		for _, d := range []map[string]any{before, after} {
			d["Statement"] = withoutPrincipals(d["Statement"])
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s: %v became %v", c.Name, before, after)
		}
	}
}

func withoutPrincipals(v any) any {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, s := range list {
		delete(s.(map[string]any), "Principal")
		delete(s.(map[string]any), "NotPrincipal")
	}
	return list
}
