package kms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"strongroom/hsm"
)

// AccessKeys lists the access keys of a root, a user or a role, with its sessions.
func (a *Admin) AccessKeys(ctx context.Context, arn PrincipalARN) ([]Credential, error) {
	if err := a.exists(ctx, arn); err != nil {
		return nil, err
	}
	return list(ctx, a.store, func(tx Tx, after string) ([]Credential, error) { return tx.Credentials(arn.String(), after, listBatch) },
		func(x Credential) string { return x.ID })
}

// exists returns an error unless there is such an account, user or role.
func (a *Admin) exists(ctx context.Context, arn PrincipalARN) error {
	err := a.store.View(ctx, func(tx Tx) error { return exists(tx, arn) })
	return describeMissing(err, arn.String())
}

func exists(tx Tx, arn PrincipalARN) error {
	if arn.IsRoot() {
		_, err := tx.Account(arn.Account)
		return err
	}
	_, err := tx.Principal(arn.Account, arn.Kind, arn.Name)
	return err
}

// CreateAccessKey makes an access key for a root or a user. Its secret is in clear only in the answer.
func (a *Admin) CreateAccessKey(ctx context.Context, device hsm.Device, arn PrincipalARN) (*AccessKey, error) {
	if arn.Kind == Role {
		return nil, errors.New("a role has no access keys of its own; make a session of it")
	}
	key := NewAccessKey()
	c := &Credential{ID: key.ID, Account: arn.Account, Principal: arn.String(), Active: true, Created: time.Now()}
	if err := a.insertCredential(ctx, device, c, key.Secret, "CreateAccessKey", named(arn, parameters{"accessKeyId": c.ID})); err != nil {
		return nil, err
	}
	return &key, nil
}

// insertCredential seals a secret and stores its credential.
func (a *Admin) insertCredential(ctx context.Context, device hsm.Device, c *Credential, secret, event string, p parameters) error {
	arn, err := ParsePrincipalARN(c.Principal)
	if err != nil {
		return err
	}
	if err := a.exists(ctx, arn); err != nil { // before the device is asked for anything
		return err
	}
	if err := sealSecret(ctx, device, a.sealer, c, secret); err != nil {
		return err
	}
	err = a.update(ctx, event, c.Account, p, func(tx Tx) error {
		if err := exists(tx, arn); err != nil {
			return err
		}
		if c.Session == "" {
			held, err := tx.Credentials(c.Principal, "", maxAccessKeys+1)
			if err != nil {
				return err
			}
			if len(held) >= maxAccessKeys {
				return fmt.Errorf("%s has %d access keys already, and may have no more: delete one", arn, len(held))
			}
		}
		return tx.InsertCredential(c)
	})
	return describeMissing(err, arn.String())
}

// How long a session may last, as in AWS STS.
const (
	MinSession = 15 * time.Minute
	MaxSession = 12 * time.Hour
)

// CreateSession makes temporary credentials of a role.
func (a *Admin) CreateSession(ctx context.Context, device hsm.Device, role PrincipalARN, name string, d time.Duration) (*SessionKey, error) {
	if role.Kind != Role {
		return nil, fmt.Errorf("%s is not a role", role)
	}
	if !principalName.MatchString(name) {
		return nil, fmt.Errorf("%q cannot be the name of a session: it must have 1 to 64 characters of letters, digits and _+=,.@-", name)
	}
	if d < MinSession || d > MaxSession {
		return nil, fmt.Errorf("a session lasts from %v to %v, not %v", MinSession, MaxSession, d)
	}
	var token [64]byte
	rand.Read(token[:]) // never fails (crypto/rand)
	now := time.Now().UTC().Truncate(time.Millisecond)
	key := &SessionKey{AccessKey: newAccessKey("ASIA"), Token: base64.StdEncoding.EncodeToString(token[:]), Expires: now.Add(d)}
	sum := sha256.Sum256([]byte(key.Token))
	c := &Credential{ID: key.ID, Account: role.Account, Principal: role.Owner().String(), Active: true, Created: now,
		Session: name, Expires: key.Expires, Token: sum[:]}
	p := named(role, parameters{"roleSessionName": name, "durationSeconds": int(d / time.Second), "accessKeyId": c.ID})
	if err := a.insertCredential(ctx, device, c, key.Secret, "AssumeRole", p); err != nil {
		return nil, err
	}
	return key, nil
}

// SetAccessKey lets an access key be used, or keeps it from being used.
func (a *Admin) SetAccessKey(ctx context.Context, id string, active bool) error {
	p := parameters{"accessKeyId": id, "status": map[bool]string{true: "Active", false: "Inactive"}[active]}
	return a.changeCredential(ctx, "UpdateAccessKey", id, p, func(tx Tx) error { return tx.SetCredentialActive(id, active) })
}

// DeleteAccessKey drops an access key or ends a session.
func (a *Admin) DeleteAccessKey(ctx context.Context, id string) error {
	return a.changeCredential(ctx, "DeleteAccessKey", id, parameters{"accessKeyId": id}, func(tx Tx) error { return tx.DeleteCredential(id) })
}

func (a *Admin) changeCredential(ctx context.Context, event, id string, p parameters, f func(Tx) error) error {
	var c *Credential
	err := a.store.View(ctx, func(tx Tx) (err error) {
		c, err = tx.Credential(id)
		return err
	})
	if err == nil {
		p["principal"] = c.Principal
		err = a.update(ctx, event, c.Account, p, f)
	}
	return describeMissing(err, "access key "+id)
}
