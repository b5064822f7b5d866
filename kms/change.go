package kms

import (
	"context"
	"strings"
	"time"
)

// A Change names something in the store that is not what it was. Who remembers it, or that it was not there, looks again.
type Change struct {
	Kind ChangeKind
	Name string // empty for AnyChange
}

// A ChangeKind says what a Change names. The values are stored.
type ChangeKind string

const (
	AnyChange        ChangeKind = "any"        // anything may have changed
	KeyChange        ChangeKind = "key"        // a key, all that belongs to it, which aliases it has, and the grants on it
	AliasChange      ChangeKind = "alias"      // which key an alias points at
	CredentialChange ChangeKind = "credential" // an access key or a session
	PrincipalChange  ChangeKind = "principal"  // a user or a role, with its tags and policies
)

// KeyChanged returns the Change of a key.
func KeyChanged(id KeyID) Change { return Change{KeyChange, id.String()} }

// AliasChanged returns the Change of an alias.
func AliasChanged(account, name string) Change { return Change{AliasChange, account + "/" + name} }

// CredentialChanged returns the Change of an access key.
func CredentialChanged(id string) Change { return Change{CredentialChange, id} }

// PrincipalChanged returns the Change of a user or a role.
func PrincipalChanged(account string, kind PrincipalKind, name string) Change {
	return Change{PrincipalChange, account + "/" + string(kind) + "/" + name}
}

// apply forgets what changes are about. What is asked for after it is read from the store as it was no earlier than now.
func (s *Service) apply(changes ...Change) {
	for _, c := range changes {
		first, rest, ok := strings.Cut(c.Name, "/")
		switch c.Kind {
		case KeyChange:
			var id KeyID
			if id, ok = parsed(c.Name); ok {
				s.keys.forget(id) // and with it what is remembered of the grants: see Key.read
				s.aliasNames.forget(id)
			}
		case AliasChange:
			s.aliases.forget(aliasKey{first, rest})
		case CredentialChange:
			s.credentials.forget(c.Name)
			ok = true
		case PrincipalChange:
			kind, name, found := strings.Cut(rest, "/")
			s.identities.forget(PrincipalARN{Partition: s.partition, Account: first, Kind: PrincipalKind(kind), Name: name}.String())
			ok = ok && found
		default:
			ok = false
		}
		if !ok { // AnyChange, or one that a newer version knows
			s.forget()
			return
		}
	}
}

func parsed(id string) (KeyID, bool) {
	k, err := ParseKeyID(id)
	return k, err == nil
}

// hear forgets what was changed in the store, by whatever process, since the last time. When it returns nil, nothing is remembered that was not true when it began.
// Otherwise nothing is remembered at all, and it is to be called again before anything is trusted.
func (s *Service) hear(ctx context.Context) error {
	// One at a time, because what is heard out of order could move heard back. Who waits for long for another that hangs goes on without.
	select {
	case s.hearing <- struct{}{}:
		defer func() { <-s.hearing }()
	case <-ctx.Done():
		s.forget()
		return ctx.Err()
	}
	changes, now, err := s.store.Changes(ctx, s.heard)
	if err != nil {
		s.forget()
		s.heard = unheard
		return err
	}
	s.apply(changes...)
	s.heard = now
	return nil
}

// unheard is before every generation.
const unheard = -1

// hearTimeout bounds how long whoever changed something waits to hear of it.
const hearTimeout = time.Second
