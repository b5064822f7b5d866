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

	Operator  string // who makes it, for the audit record
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
	sealer := SystemKey{Name: sealerName, ID: newMaterialID()}
	if sealer.Ref, err = o.Device.Generate(ctx, sealer.ID, systemLabel(sealer.Name)); err != nil {
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
			ID:          newUUID(),
			Created:     now,
			Partition:   o.Partition,
			Region:      o.Region,
			TokenSerial: o.TokenSerial,
			UsageSince:  now,
		})
		if err != nil {
			return err
		}
		if err := tx.InsertSystemKey(&sealer); err != nil {
			return err
		}
		if err := tx.InsertAccount(o.Account, now); err != nil {
			return err
		}
		for _, act := range []struct {
			name string
			parameters
		}{
			{"CreateAccount", parameters{"accountId": o.Account}},
			{"CreateAccessKey", parameters{"accountId": o.Account, "accessKeyId": credential.ID}},
		} {
			r, err := adminRecord(o.Operator, o.Region, act.name, o.Account, act.parameters)
			if err != nil {
				return err
			}
			if err := insertEvent(tx, r); err != nil {
				return err
			}
		}
		return tx.InsertCredential(credential)
	})
}

// The names of the keys that serve the server itself.
const (
	sealerName = "access-keys" // AES-256: seals the secrets of access keys and nothing else
	signerName = "audit"       // ECDSA P-256: signs checkpoints of the audit log and nothing else
)

// systemLabel is what a person sees in the token.
func systemLabel(name string) string { return "strongroom/system/" + name }

// An AuditSigner signs checkpoints of the audit log with a key in the device. It is an audit.Signer.
type AuditSigner struct {
	device hsm.Device
	ref    hsm.Ref
	public []byte
}

// FindAuditSigner returns the deployment's signer. Its error is ErrNotStored if no server has made it yet.
func FindAuditSigner(ctx context.Context, device hsm.Device, store Store) (*AuditSigner, error) {
	var key *SystemKey
	err := store.View(ctx, func(tx Tx) (err error) {
		key, err = tx.SystemKey(signerName)
		return err
	})
	if err == nil && key.Ref == nil {
		err = ErrNotStored
	}
	if err != nil {
		return nil, fmt.Errorf("the key that signs the audit log: %w", err)
	}
	return newAuditSigner(ctx, device, key)
}

func newAuditSigner(ctx context.Context, device hsm.Device, key *SystemKey) (*AuditSigner, error) {
	public, err := device.PublicKey(ctx, key.Ref)
	if err != nil {
		return nil, fmt.Errorf("the key that signs the audit log: %w", err)
	}
	return &AuditSigner{device, key.Ref, public}, nil
}

// NewAuditSigner returns the deployment's signer. Its key is made the first time: row first, so that what is in the token is known to the store. Only a
// process that has claimed the store may call it: two that make the key at once would make two.
func NewAuditSigner(ctx context.Context, device hsm.Device, store Store) (*AuditSigner, error) {
	fail := func(err error) (*AuditSigner, error) {
		return nil, fmt.Errorf("the key that signs the audit log: %w", err)
	}
	var key *SystemKey
	find := func(tx Tx) (err error) {
		key, err = tx.SystemKey(signerName)
		return err
	}
	err := store.View(ctx, find)
	if isNotStored(err) {
		err = store.Update(ctx, func(tx Tx) error {
			return tx.InsertSystemKey(&SystemKey{Name: signerName, ID: newMaterialID()})
		})
		if err == nil || errors.Is(err, ErrConflict) { // another process was quicker
			err = store.View(ctx, find)
		}
	}
	if err != nil {
		return fail(err)
	}
	if key.Ref == nil {
		ref, err := device.GenerateSigner(ctx, key.ID, systemLabel(key.Name))
		if errors.Is(err, hsm.ErrNoKey) {
			// What an interrupted attempt left. The row has no Ref, so it never signed anything.
			if err = device.Destroy(ctx, key.ID); err == nil {
				ref, err = device.GenerateSigner(ctx, key.ID, systemLabel(key.Name))
			}
		}
		if err != nil {
			return fail(err)
		}
		err = store.Update(ctx, func(tx Tx) error { return tx.SetSystemKeyRef(key.Name, ref) })
		if err != nil && !errors.Is(err, ErrConflict) {
			return fail(err)
		}
		if err := store.View(ctx, find); err != nil {
			return fail(err)
		}
	}
	return newAuditSigner(ctx, device, key)
}

// PublicKey returns the key that verifies signatures, a SubjectPublicKeyInfo in DER.
func (a *AuditSigner) PublicKey() []byte { return a.public }

// Sign signs a SHA-256 digest in the device: ECDSA on P-256, ASN.1 DER.
func (a *AuditSigner) Sign(ctx context.Context, digest [32]byte) ([]byte, error) {
	return a.device.Sign(ctx, a.ref, digest)
}

// CheckToken returns nil if the device holds the keys of the deployment in store. An error that is hsm.ErrNoKey means that the store belongs to another token.
func CheckToken(ctx context.Context, device hsm.Device, store Store) error {
	var sealer *SystemKey
	err := store.View(ctx, func(tx Tx) (err error) {
		sealer, err = tx.SystemKey(sealerName)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the key that seals secrets: %w", err)
	}
	// To seal anything proves the key first. The result is dropped.
	if _, err := device.Seal(ctx, sealer.Ref, nil, []byte("check"), []byte("strongroom check v1")); err != nil {
		return fmt.Errorf("use the key that seals secrets: %w", err)
	}
	return nil
}
