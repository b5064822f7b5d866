package test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A stateful is what an operation does to a key in each of the three states: "" if it succeeds, or the words after the ARN in its refusal (AWS KMS
// Developer Guide, "Key states of AWS KMS keys").
type stateful struct {
	operation                  string
	enabled, disabled, pending string
	call                       func(ctx context.Context, c *kms.Client, key *subject) error
}

// A subject is a key under test: what was made of it while it was enabled, and another key that stays enabled.
type subject struct {
	id, arn, alias string
	blob           []byte // sealed by the key
	other          string
	otherBlob      []byte // sealed by the other key
}

// The words of the refusals.
const (
	isDisabled   = "is disabled."
	isPending    = "is pending deletion."
	isNotPending = "is not pending deletion."
)

var statefuls = []stateful{
	{"Encrypt", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.id, Plaintext: []byte("x")})
		return err
	}},
	{"Encrypt by alias", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.alias, Plaintext: []byte("x")})
		return err
	}},
	{"Decrypt", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: k.blob})
		return err
	}},
	{"Decrypt with KeyId", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: k.blob, KeyId: &k.arn})
		return err
	}},
	// The state is told before the context is looked at, which takes the device.
	{"Decrypt with DryRun", "DryRun", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: k.blob, DryRun: aws.Bool(true)})
		return err
	}},
	{"ReEncrypt from", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: k.blob, DestinationKeyId: &k.other})
		return err
	}},
	{"ReEncrypt to", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: k.otherBlob, DestinationKeyId: &k.id})
		return err
	}},
	{"GenerateDataKey", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &k.id, KeySpec: types.DataKeySpecAes256})
		return err
	}},
	{"GenerateDataKeyWithoutPlaintext", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &k.id, KeySpec: types.DataKeySpecAes256})
		return err
	}},
	{"GenerateDataKeyPair", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &k.id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		return err
	}},
	{"GenerateDataKeyPairWithoutPlaintext", "", isDisabled, isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: &k.id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		return err
	}},
	{"CreateAlias", "", "", isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/" + random()), TargetKeyId: &k.id})
		return err
	}},
	{"UpdateAlias to", "", "", isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		name := "alias/" + random()
		if _, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &k.other}); err != nil {
			return err
		}
		_, err := c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &k.id})
		return err
	}},
	{"UpdateAlias from", "", "", "", func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &k.alias, TargetKeyId: &k.other})
		return err
	}},
	{"DeleteAlias", "", "", "", func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: &k.alias})
		return err
	}},
	{"ListAliases", "", "", "", func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.ListAliases(ctx, &kms.ListAliasesInput{KeyId: &k.id})
		return err
	}},
	{"DescribeKey", "", "", "", func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &k.alias})
		return err
	}},
	{"UpdateKeyDescription", "", "", isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.UpdateKeyDescription(ctx, &kms.UpdateKeyDescriptionInput{KeyId: &k.arn, Description: aws.String("x")})
		return err
	}},
	{"EnableKey", "", "", isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: &k.arn})
		return err
	}},
	{"DisableKey", "", "", isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: &k.arn})
		return err
	}},
	{"ScheduleKeyDeletion", "", "", isPending, func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &k.arn})
		return err
	}},
	{"CancelKeyDeletion", isNotPending, isNotPending, "", func(ctx context.Context, c *kms.Client, k *subject) error {
		_, err := c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: &k.arn})
		return err
	}},
}

// TestKeyStates: each operation on a key in each state, a new key for each.
func TestKeyStates(t *testing.T) {
	_, c := shared(t)
	other := newKey(t, c)
	otherBlob, _, err := producers["Encrypt"](within(t), c, *other.KeyId, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range statefuls {
		t.Run(test.operation, func(t *testing.T) {
			t.Parallel()
			for _, state := range []types.KeyState{types.KeyStateEnabled, types.KeyStateDisabled, types.KeyStatePendingDeletion} {
				ctx := within(t)
				key, alias := newAlias(t, c)
				blob, _, err := producers["Encrypt"](ctx, c, *key.KeyId, nil)
				if err != nil {
					t.Fatal(err)
				}
				want := test.enabled
				switch state {
				case types.KeyStateDisabled:
					want = test.disabled
					_, err = c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key.KeyId})
				case types.KeyStatePendingDeletion:
					want = test.pending
					_, err = c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: key.KeyId})
				}
				if err != nil {
					t.Fatal(err)
				}
				err = test.call(ctx, c, &subject{id: *key.KeyId, arn: *key.Arn, alias: alias, blob: blob, other: *other.KeyId, otherBlob: otherBlob})
				switch want {
				case "":
					if err != nil {
						t.Errorf("%s: %v", state, err)
					}
				case "DryRun":
					refused(t, string(state), err, "DryRunOperationException", textDryRun)
				case isDisabled:
					refused(t, string(state), err, "DisabledException", *key.Arn+" "+want)
				default:
					refused(t, string(state), err, "KMSInvalidStateException", *key.Arn+" "+want)
				}
			}
		})
	}
}

// TestKeyLifetime: the states as DescribeKey shows them, and what a key can do after it was saved.
func TestKeyLifetime(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	blob, _, err := producers["Encrypt"](ctx, c, *key.KeyId, nil)
	if err != nil {
		t.Fatal(err)
	}
	is := func(state types.KeyState) *types.KeyMetadata {
		t.Helper()
		out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key.KeyId})
		if err != nil {
			t.Fatal(err)
		}
		m := out.KeyMetadata
		if m.KeyState != state || m.Enabled != (state == types.KeyStateEnabled) || (m.DeletionDate != nil) != (state == types.KeyStatePendingDeletion) {
			t.Errorf("state %s, enabled %v, deletion date %v, want %s", m.KeyState, m.Enabled, m.DeletionDate, state)
		}
		return m
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is(types.KeyStateEnabled)
	for range 2 { // the second time changes nothing and is no error
		_, err = c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key.KeyId})
		must(err)
		is(types.KeyStateDisabled)
	}
	for range 2 {
		_, err = c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: key.Arn})
		must(err)
		is(types.KeyStateEnabled)
	}
	for _, days := range []int32{0, 7, 30} {
		input, want := &kms.ScheduleKeyDeletionInput{KeyId: key.KeyId}, int32(30)
		if days != 0 {
			input.PendingWindowInDays, want = &days, days
		}
		out, err := c.ScheduleKeyDeletion(ctx, input)
		must(err)
		due := time.Now().AddDate(0, 0, int(want))
		if aws.ToString(out.KeyId) != *key.Arn || out.KeyState != types.KeyStatePendingDeletion || aws.ToInt32(out.PendingWindowInDays) != want ||
			out.DeletionDate.Sub(due).Abs() > time.Hour {
			t.Errorf("a window of %d days: %s %s %d %v", days, aws.ToString(out.KeyId), out.KeyState, aws.ToInt32(out.PendingWindowInDays), out.DeletionDate)
		}
		if m := is(types.KeyStatePendingDeletion); !m.DeletionDate.Equal(*out.DeletionDate) {
			t.Errorf("DescribeKey says %v, ScheduleKeyDeletion said %v", m.DeletionDate, out.DeletionDate)
		}
		saved, err := c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: key.KeyId})
		must(err)
		if aws.ToString(saved.KeyId) != *key.Arn {
			t.Errorf("CancelKeyDeletion: %s", aws.ToString(saved.KeyId))
		}
		is(types.KeyStateDisabled) // not enabled
	}
	for _, days := range []int32{-1, 0, 1, 6, 31, 365, 1 << 30} {
		_, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: key.KeyId, PendingWindowInDays: &days})
		if refusalOf(err).code != "ValidationException" {
			t.Errorf("a window of %d days: %v", days, err)
		}
	}
	_, err = c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: key.KeyId})
	must(err)
	if got, err := decrypt(ctx, c, blob, nil); err != nil || string(got) != "hello" {
		t.Errorf("after all that: %q, %v", got, err)
	}
}
