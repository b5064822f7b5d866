package main

import (
	"encoding/hex"
	"fmt"

	"strongroom/kms/attest"
)

// A condition is the Condition of a policy statement: values by condition key, by operator.
type condition map[string]map[string]string

// A statement is one of a key's policy.
type statement struct {
	Sid       string
	Effect    string
	Principal string
	Action    []string
	Resource  string
	Condition condition
}

// A pin is a condition key and the only value it may have.
type pin struct {
	key, value string
	operator   string // that holds if it has
	otherwise  string // that holds if it has another, or is absent
	name       string // of the pin
}

// pinsOf returns what documents of the same code have in common with d, nil if it vouches for none. root is the name of the anchor, if it is known.
//
// Of an enclave that is the image, and if they are set, the role of its instance and the certificate that its image is signed with; the id of the
// instance changes with each. Of a TPM it is what is booted, Secure Boot, and that the kernel's command line was not changed; a zero counts there. Since every
// anchor can say all this, the anchor itself belongs to it.
func pinsOf(d *attest.Document, root string) []pin {
	var pins []pin
	add := func(key string, index int) {
		pins = append(pins, pin{
			key: "kms:RecipientAttestation:" + key, value: hex.EncodeToString(d.PCRs[index]),
			operator: "StringEqualsIgnoreCase", otherwise: "StringNotEqualsIgnoreCase", name: key,
		})
	}
	switch d.Kind {
	case attest.Enclave:
		if d.Debug() || isZero(d.PCRs[0]) {
			return nil
		}
		add("ImageSha384", 0)
		for _, index := range []int{3, 8} {
			if !isZero(d.PCRs[index]) {
				add(fmt.Sprintf("PCR%d", index), index)
			}
		}
	case attest.NitroTPM:
		for _, index := range []int{4, 7, 12} {
			if d.PCRs[index] != nil {
				add(fmt.Sprintf("NitroTPMPCR%d", index), index)
			}
		}
		if isZero(d.PCRs[4]) {
			return nil
		}
	}
	if root != "" {
		pins = append(pins, pin{
			key: "strongroom:RecipientAttestation:Root", value: root, operator: "StringEquals", otherwise: "StringNotEquals", name: "Root",
		})
	}
	return pins
}

// allOf returns the condition that all pins hold.
func allOf(pins []pin) condition {
	all := make(condition)
	for _, p := range pins {
		if all[p.operator] == nil {
			all[p.operator] = make(map[string]string)
		}
		all[p.operator][p.key] = p.value
	}
	return all
}

// attestedActions are those with an answer in clear that a document's key can be sent instead, and whose policies can ask for it.
var attestedActions = []string{"kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair"}

// pinnedActions are those to deny to who is not pinned. A request to encrypt again under another key has no document, so nobody can make it: what was
// encrypted again is out of the reach of the statements.
var pinnedActions = append(attestedActions[:len(attestedActions):len(attestedActions)], "kms:ReEncryptFrom")

// denials returns statements that deny every request for which a pin does not hold. There is one for each, because the keys of one condition would all
// have to differ before it denied anything.
func denials(pins []pin) []statement {
	var all []statement
	for _, p := range pins {
		all = append(all, statement{
			Sid: "DenyOther" + p.name, Effect: "Deny", Principal: "*", Action: pinnedActions, Resource: "*",
			Condition: condition{p.otherwise: {p.key: p.value}},
		})
	}
	return all
}
