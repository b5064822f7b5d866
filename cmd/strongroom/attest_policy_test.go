package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/policy"
)

// attestedContext are the condition keys of a request with a document, in lower case.
type attestedContext map[string]string

func (c attestedContext) Values(key string) ([]string, bool) {
	v, ok := c[key]
	return []string{v}, ok
}

func contextOf(d *attest.Document, root string) attestedContext {
	c := attestedContext{"strongroom:recipientattestation:root": root}
	for index, value := range d.PCRs {
		name := fmt.Sprintf("kms:recipientattestation:pcr%d", index)
		if d.Kind == attest.NitroTPM {
			name = fmt.Sprintf("kms:recipientattestation:nitrotpmpcr%d", index)
		}
		c[name] = hex.EncodeToString(value)
	}
	if d.Kind == attest.Enclave {
		c["kms:recipientattestation:imagesha384"] = c["kms:recipientattestation:pcr0"]
	}
	return c
}

// keyPolicyOf returns a key policy with the statements, after one that allows everything to everybody.
func keyPolicyOf(t *testing.T, statements ...any) *policy.Document {
	t.Helper()
	all := append([]any{map[string]string{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}}, statements...)
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": all})
	if err != nil {
		t.Fatal(err)
	}
	d, err := policy.Parse(policy.KeyPolicy, string(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if warnings := d.Warnings(); len(warnings) > 0 {
		t.Errorf("%q: %s", warnings, text)
	}
	return d
}

func allows(p *policy.Document, action string, c policy.Context) bool {
	return policy.Decide(policy.Question{
		Caller:   policy.Caller{ARN: "arn:aws:iam::111122223333:root", Account: "111122223333"},
		Action:   action,
		Resource: fakeKeyARN,
		Owner:    "111122223333",
		Context:  c,
	}, policy.Policies{Key: p}).Allowed
}

// The statements let in what they were made from, and neither another measurement, nor another root, nor who sends no document.
func TestStatementsPinTheDocument(t *testing.T) {
	for file, pinned := range map[string][]string{
		rsaDocument:               {"imagesha384", "pcr3"},
		"nitrotpm-2026-02-01.bin": {"nitrotpmpcr4", "nitrotpmpcr7", "nitrotpmpcr12"},
	} {
		d, err := attest.Parse(readReal(t, file))
		if err != nil {
			t.Fatal(err)
		}
		j, err := inspect(readReal(t, file), attest.Options{Anchors: []attest.Anchor{attest.AWSRoot()}}, "", d.Time)
		if err != nil {
			t.Fatal(err)
		}
		var denials []any
		for _, s := range j.Statements {
			denials = append(denials, s)
		}
		if len(denials) != len(pinned)+1 {
			t.Errorf("%s: %d statements, want %d and one", file, len(denials), len(pinned))
		}
		denying := keyPolicyOf(t, denials...)
		allowing := keyPolicyOf(t)
		conditional, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statement{
			Sid: "Attested", Effect: "Allow", Principal: "*", Action: attestedActions, Resource: "*", Condition: j.Condition,
		}})
		if err != nil {
			t.Fatal(err)
		}
		only, err := policy.Parse(policy.KeyPolicy, string(conditional))
		if err != nil {
			t.Fatal(err)
		}
		same := contextOf(d, "aws")
		others := map[string]policy.Context{"no document": nil, "an empty context": attestedContext{}}
		change := func(name, key, value string) {
			other := maps.Clone(same)
			if other[key] == "" {
				t.Fatalf("%s: the request has no %s", file, key)
			}
			other[key] = value
			others[name] = other
		}
		for _, name := range pinned {
			change("another "+name, "kms:recipientattestation:"+name, strings.Repeat("ab", 48))
		}
		change("another root", "strongroom:recipientattestation:root", "lab")
		change("a root in capitals", "strongroom:recipientattestation:root", "AWS")
		for _, action := range []string{"kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair"} {
			upper := maps.Clone(same)
			for key, value := range upper {
				if strings.Contains(key, "pcr") {
					upper[key] = strings.ToUpper(value)
				}
			}
			for _, c := range []policy.Context{same, upper} {
				if !allows(denying, action, c) || !allows(only, action, c) {
					t.Errorf("%s: %s is denied to the document itself", file, action)
				}
			}
			for name, c := range others {
				if allows(denying, action, c) || allows(only, action, c) {
					t.Errorf("%s: %s is allowed with %s", file, action, name)
				}
				if !allows(allowing, action, c) {
					t.Errorf("%s: %s is denied with %s even without the statements", file, action, name)
				}
			}
		}
		if allows(denying, "kms:ReEncryptFrom", attestedContext{}) || !allows(allowing, "kms:ReEncryptFrom", attestedContext{}) {
			t.Errorf("%s: ReEncryptFrom gets around the statements", file)
		}
		if !allows(denying, "kms:Encrypt", nil) {
			t.Errorf("%s: Encrypt is denied", file)
		}
	}
}

// What vouches for no code pins nothing.
func TestNoPins(t *testing.T) {
	zero, set := make([]byte, 48), []byte(strings.Repeat("x", 48))
	for name, d := range map[string]*attest.Document{
		"debug mode":      {Kind: attest.Enclave, PCRs: map[int][]byte{0: zero, 1: zero, 2: zero, 3: set, 8: set}},
		"no image":        {Kind: attest.Enclave, PCRs: map[int][]byte{1: set, 8: set}},
		"nothing at all":  {Kind: attest.Enclave},
		"nothing booted":  {Kind: attest.NitroTPM, PCRs: map[int][]byte{4: zero, 7: set}},
		"PCR4 is missing": {Kind: attest.NitroTPM, PCRs: map[int][]byte{7: set}},
	} {
		if pins := pinsOf(d, "aws"); pins != nil {
			t.Errorf("%s: %v", name, pins)
		}
	}
	signed := &attest.Document{Kind: attest.Enclave, Time: time.Now(), PCRs: map[int][]byte{0: set, 3: zero, 4: set, 8: set}}
	if got := len(pinsOf(signed, "")); got != 2 { // the image and the certificate that it is signed with
		t.Errorf("%d pins, want 2", got)
	}
}
