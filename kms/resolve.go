package kms

import (
	"context"
	"crypto/sha256"
	"strings"
)

// keyForms says which forms of key identifier an operation takes (AWS KMS API Reference, per operation: KeyId).
type keyForms struct {
	alias     bool // alias names and alias ARNs too
	modelsARN bool // a malformed ARN is InvalidArnException, which not every operation has
}

var (
	cryptoForms   = keyForms{alias: true}                  // cryptographic operations
	describeForms = keyForms{alias: true, modelsARN: true} // DescribeKey
	manageForms   = keyForms{modelsARN: true}              // operations on a key
	aliasForms    = keyForms{}                             // the target of an alias
)

// resolve finds the key that a names. The refusals and their words are those recorded from AWS KMS. A key of another account that
// does not exist is told apart from one that may not be used by nobody: that is [Service.denyForeign] in both cases.
func (s *Service) resolve(ctx context.Context, who Caller, a *access) (*Key, error) {
	id := a.keyID
	if strings.HasPrefix(id, "arn:") {
		return s.resolveARN(ctx, who, a)
	}
	if strings.HasPrefix(id, aliasPrefix) {
		if !a.forms.alias {
			return nil, errorf(NotFound, "Invalid keyId '%s'", id)
		}
		return s.resolveAlias(ctx, who, a, who.Account, id)
	}
	keyID, err := ParseKeyID(id)
	if err != nil {
		return nil, errorf(NotFound, "Invalid keyId '%s'", id)
	}
	return s.resolveKey(ctx, who, a, who.Account, keyID)
}

func (s *Service) resolveARN(ctx context.Context, who Caller, a *access) (*Key, error) {
	arn, ok := parseARN(a.keyID)
	if !ok || arn.partition != s.partition {
		if a.forms.modelsARN {
			return nil, errorf(InvalidArn, "Invalid arn")
		}
		return nil, errorf(NotFound, "Invalid arn")
	}
	if arn.region != s.region {
		return nil, errorf(NotFound, "Invalid arn %s", arn.region)
	}
	if rest, ok := strings.CutPrefix(arn.resource, "key/"); ok {
		keyID, err := ParseKeyID(rest)
		if err != nil {
			return nil, errorf(NotFound, "Invalid keyId %s", rest)
		}
		return s.resolveKey(ctx, who, a, arn.account, keyID)
	}
	if strings.HasPrefix(arn.resource, aliasPrefix) {
		if !a.forms.alias {
			return nil, errorf(NotFound, "Invalid keyId '%s'", arn.resource)
		}
		return s.resolveAlias(ctx, who, a, arn.account, arn.resource)
	}
	if a.forms.modelsARN {
		return nil, errorf(InvalidArn, "Invalid arn")
	}
	return nil, errorf(NotFound, "Invalid arn")
}

// resolveKey finds a key of an account by its id. That there is none is told to those of the account whom an identity policy would allow the action.
func (s *Service) resolveKey(ctx context.Context, who Caller, a *access, account string, id KeyID) (*Key, error) {
	key, err := s.key(ctx, id)
	if err != nil && !isNotStored(err) {
		return nil, err
	}
	if err == nil && key.Account == account {
		return key, nil
	}
	arn := s.keyARN(account, id)
	if account != who.Account {
		return nil, s.denyForeign(who, a.action, "there is no key "+arn)
	}
	if err := s.permit(ctx, who, *a, arn); err != nil {
		return nil, err
	}
	return nil, errorf(NotFound, "Key '%s' does not exist", arn)
}

func (s *Service) resolveAlias(ctx context.Context, who Caller, a *access, account, name string) (*Key, error) {
	a.alias = name
	key, err := s.keyOfAlias(ctx, account, name)
	if isNotStored(err) {
		arn := s.aliasARN(account, name)
		if account != who.Account {
			return nil, s.denyForeign(who, a.action, "there is no alias "+arn)
		}
		return nil, errorf(NotFound, "Alias %s is not found.", arn)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// keyOfAlias returns the key that an alias points at now.
func (s *Service) keyOfAlias(ctx context.Context, account, name string) (*Key, error) {
	// An alias may be moved, and its old key destroyed, between the two looks. Then the second one misses and the first is
	// out of date, so look again.
	for range 3 {
		alias, err := s.alias(ctx, account, name)
		if err != nil {
			return nil, err
		}
		key, err := s.key(ctx, alias.Key)
		if !isNotStored(err) {
			return key, err
		}
	}
	return nil, ErrNotStored
}

// key returns the key called id if a client can see it, from memory where that can be trusted. The Key is shared.
func (s *Service) key(ctx context.Context, id KeyID) (*Key, error) {
	return s.readKey(ctx, id, s.trusted())
}

// readKey is key; what is remembered is used only if it is trusted.
func (s *Service) readKey(ctx context.Context, id KeyID, trusted bool) (*Key, error) {
	return s.keys.get(id, trusted, func() (*Key, error) {
		var key *Key
		err := s.store.View(ctx, func(tx Tx) (err error) {
			key, err = tx.Key(id)
			return err
		})
		if err != nil {
			return nil, err
		}
		if !key.State.visible() || len(key.Materials) == 0 {
			return nil, ErrNotStored
		}
		key.policyHash, key.read = sha256.Sum256([]byte(key.Policy)), s.reads.Add(1)
		return key, nil
	})
}

type aliasKey struct{ account, name string }

// alias returns the alias called name, from memory where that can be trusted.
func (s *Service) alias(ctx context.Context, account, name string) (*Alias, error) {
	return s.aliases.get(aliasKey{account, name}, s.trusted(), func() (*Alias, error) {
		var alias *Alias
		err := s.store.View(ctx, func(tx Tx) (err error) {
			alias, err = tx.Alias(account, name)
			return err
		})
		return alias, err
	})
}
