package kms

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A condition is the value of a condition key that only the operation knows. The key is in lower case.
type condition struct {
	key    string
	values []string
}

// facts are what is known of a request, for the conditions of policies: the condition keys of AWS KMS (AWS KMS Developer Guide, "Condition keys for
// AWS KMS") and the global ones (AWS IAM User Guide, "AWS global condition context keys") as far as there is something here that they can mean.
// It is for one decision, and implements policy.Context.
type facts struct {
	service  *Service
	ctx      context.Context
	who      *Caller
	identity *identity
	access   *access
	key      *Key // nil for a request that is about no key

	// What a policy may ask hundreds of times of an encryption context with thousands of pairs, once it was asked for.
	contextKeys []string            // names, ascending
	context     map[string][]string // values by name in lower case, ascending

	// err is why a value could not be found out. A decision that was made meanwhile does not count.
	err error
}

// Values returns the values of the condition key, whose name is in lower case, and whether the request has it.
func (f *facts) Values(name string) ([]string, bool) {
	for _, c := range f.access.conditions {
		if c.key == name {
			return c.values, true
		}
	}
	namespace, rest, _ := strings.Cut(name, ":")
	switch namespace {
	case "kms":
		return f.kmsValues(rest)
	case "aws":
		return f.globalValues(rest)
	case "strongroom":
		if a := f.attestation(); a != nil && rest == "recipientattestation:root" {
			return one(a.Root)
		}
	}
	return nil, false
}

func (f *facts) kmsValues(name string) ([]string, bool) {
	if wanted, ok := strings.CutPrefix(name, "encryptioncontext:"); ok {
		if f.context == nil {
			f.context = foldNames(f.access.context)
		}
		values := f.context[wanted]
		return values, values != nil
	}
	if register, ok := strings.CutPrefix(name, "recipientattestation:"); ok {
		return f.attestedValue(register)
	}
	switch name {
	case "calleraccount":
		return one(f.who.Account)
	case "encryptioncontextkeys":
		if f.contextKeys == nil {
			f.contextKeys = slices.Sorted(maps.Keys(f.access.context))
		}
		return f.contextKeys, len(f.contextKeys) > 0
	case "encryptionalgorithm":
		if !f.access.cryptographic {
			return nil, false
		}
		if f.access.algorithm != "" {
			return one(f.access.algorithm)
		}
		return one(symmetricDefault)
	case "requestalias":
		if f.access.cryptographic || f.access.action == "kms:DescribeKey" {
			return one(f.access.alias)
		}
		return nil, false
	case "resourcealiases":
		return f.resourceAliases()
	}
	if f.key == nil {
		return nil, false
	}
	// Every key here is one of these.
	switch name {
	case "keyspec", "customermasterkeyspec":
		return one(symmetricDefault)
	case "keyusage", "customermasterkeyusage":
		return one("ENCRYPT_DECRYPT")
	case "keyorigin":
		return one("AWS_KMS")
	case "multiregion":
		return one(strconv.FormatBool(f.key.ID.MultiRegion()))
	case "multiregionkeytype":
		if f.key.ID.MultiRegion() {
			return one("PRIMARY")
		}
	}
	return nil, false
}

func (f *facts) globalValues(name string) ([]string, bool) {
	switch prefix, rest, _ := strings.Cut(name, "/"); prefix {
	case "principaltag":
		return lookFolded(f.identity.tags, rest)
	case "resourcetag":
		if f.key == nil {
			return nil, false
		}
		return lookFolded(f.key.Tags, rest)
	}
	arn, session := f.identity.arn, f.who.Role != ""
	switch name {
	case "principalarn":
		return one(f.who.owner()) // of a session, it is the role's
	case "principalaccount":
		return one(f.who.Account)
	case "principaltype":
		switch {
		case session:
			return one("AssumedRole")
		case arn.IsRoot():
			return one("Account")
		}
		return one("User")
	case "userid":
		if session {
			return one(f.identity.id + ":" + sessionName(f.who.Principal))
		}
		return one(f.identity.id)
	case "username":
		if arn.Kind == User {
			return one(arn.Name)
		}
	case "tokenissuetime":
		if session {
			return one(f.who.Issued.UTC().Format(time.RFC3339))
		}
	case "multifactorauthpresent":
		if session { // with a long-term key it is absent, as in AWS
			return one("false")
		}
	case "sourceip":
		if f.who.Source.IsValid() {
			return one(f.who.Source.String())
		}
	case "securetransport":
		return one(strconv.FormatBool(f.who.Secure))
	case "useragent":
		return one(f.who.UserAgent)
	case "currenttime":
		return one(f.access.at().UTC().Format(time.RFC3339))
	case "epochtime":
		return one(strconv.FormatInt(f.access.at().Unix(), 10))
	case "requestedregion":
		return one(f.service.region)
	case "resourceaccount":
		if f.key != nil {
			return one(f.key.Account)
		}
		return one(f.who.Account)
	case "viaawsservice", "principalisawsservice":
		return one("false")
	}
	return nil, false
}

// resourceAliases returns the aliases of the key.
func (f *facts) resourceAliases() ([]string, bool) {
	if f.key == nil {
		return nil, false
	}
	names, err := f.service.aliasNames.get(f.key.ID, f.service.trusted(), func() ([]string, error) {
		var names []string
		err := f.service.store.View(f.ctx, func(tx Tx) error {
			aliases, err := tx.Aliases(f.key.Account, f.key.ID, "", maxAliases)
			names = nil
			for _, a := range aliases {
				names = append(names, a.Name)
			}
			return err
		})
		return names, err
	})
	if err != nil {
		f.err = err
		return nil, false
	}
	return names, len(names) > 0
}

// at returns the time of the request.
func (a *access) at() time.Time {
	if a.now.IsZero() {
		a.now = time.Now()
	}
	return a.now
}

// sessionName returns the last part of the ARN of a session.
func sessionName(principal string) string { return principal[strings.LastIndexByte(principal, '/')+1:] }

// one returns a value, or none for an empty one.
func one(value string) ([]string, bool) {
	if value == "" {
		return nil, false
	}
	return []string{value}, true
}

// foldNames returns the values in m by their names in lower case, in ascending order.
func foldNames(m map[string]string) map[string][]string {
	folded := make(map[string][]string, len(m))
	for name, value := range m {
		name = strings.ToLower(name)
		folded[name] = append(folded[name], value)
	}
	for _, values := range folded {
		slices.Sort(values)
	}
	return folded
}

// lookFolded returns the values of all names in m that are name but for letter case, in ascending order. The name is in lower case.
func lookFolded(m map[string]string, name string) ([]string, bool) {
	var values []string
	for n, value := range m {
		if strings.ToLower(n) == name {
			values = append(values, value)
		}
	}
	slices.Sort(values)
	return values, values != nil
}
