package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"strongroom/hsm"
)

// InitOptions say what [Init] makes.
type InitOptions struct {
	Device      hsm.Device
	TokenSerial string // of the token behind Device, kept for messages
	Store       Store

	Partition string // "aws"
	Region    string // "local-1"
	Account   string // 12 digits: the first account
	Key       AccessKey
}

// Init writes a deployment into an empty store: a key in the token that seals secrets, the first account, and an access key
// of its root. It returns an error that is ErrConflict, and changes nothing, if the store has a deployment. An Init that was interrupted may be repeated;
// it can leave a key in the token that nothing uses.
func Init(ctx context.Context, o InitOptions) error {
	if !IsAccount(o.Account) {
		return fmt.Errorf("account %q is not 12 digits", o.Account)
	}
	if o.Partition == "" || o.Region == "" || o.Key.ID == "" || o.Key.Secret == "" {
		return errors.New("kms: Partition, Region and Key are required")
	}
	err := o.Store.View(ctx, func(tx Tx) error {
		_, err := tx.Deployment()
		return err
	})
	if err == nil {
		return fmt.Errorf("the store has a deployment: %w", ErrConflict)
	}
	if !isNotStored(err) {
		return err
	}

	now := time.Now()
	sealer := SystemKey{Name: "access-keys", ID: newMaterialID()}
	if sealer.Ref, err = o.Device.Generate(ctx, sealer.ID, "strongroom/system/"+sealer.Name); err != nil {
		return fmt.Errorf("make the key that seals secrets: %w", err)
	}
	credential := &Credential{
		ID:        o.Key.ID,
		Account:   o.Account,
		Principal: RootARN(o.Partition, o.Account),
		Active:    true,
		Created:   now,
	}
	if err := sealSecret(ctx, o.Device, sealer, credential, o.Key.Secret); err != nil {
		return err
	}
	return o.Store.Update(ctx, func(tx Tx) error {
		err := tx.InsertDeployment(&Deployment{
			ID:           newKeyID(false).String(),
			Created:      now,
			Partition:    o.Partition,
			Region:       o.Region,
			TokenSerial:  o.TokenSerial,
			SecretSealer: sealer,
		})
		if err != nil {
			return err
		}
		if err := tx.InsertAccount(o.Account, now); err != nil {
			return err
		}
		return tx.InsertCredential(credential)
	})
}

// CheckToken returns nil if the device holds the deployment's keys. An error that is hsm.ErrNoKey means that the store belongs to another token.
func (s *Service) CheckToken(ctx context.Context) error {
	// To seal anything proves the key first. The result is dropped.
	if _, err := s.device.Seal(ctx, s.sealer.Ref, nil, []byte("check"), []byte("strongroom check v1")); err != nil {
		return fmt.Errorf("use the key that seals secrets: %w", err)
	}
	return nil
}
