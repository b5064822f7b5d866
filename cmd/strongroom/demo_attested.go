package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"strongroom/keyspec"
	"strongroom/kms/attest/attesttest"
)

// A demoAttested is what was proved of answers for an enclave. Its documents are signed by the rig's own root, as no machine but AWS's can have others.
type demoAttested struct {
	Envelope     int    `json:"envelopeBytes"`
	EnclaveOpens bool   `json:"enclaveOpens"`
	OthersDenied bool   `json:"otherImageDenied"`
	NoneDenied   bool   `json:"noDocumentDenied"`
	OldRefused   bool   `json:"oldDocumentRefused"`
	Error        string `json:"error,omitempty"`
}

func (a *demoAttested) ok() bool {
	return a.EnclaveOpens && a.OthersDenied && a.NoneDenied && a.OldRefused && a.Error == ""
}

// proof says in a few words what was proved, or what was not.
func (a *demoAttested) proof() string {
	switch {
	case a.Error != "":
		return "FAILED: " + a.Error
	case !a.ok():
		return "FAILED"
	}
	return "opened by it, its private key works; another image and no document are denied, an old document is refused"
}

// makeDemoAttested pins a key to the image of an enclave and asks for a pair as this one, another one, nobody, and too late.
func makeDemoAttested(ctx context.Context, client *awskms.Client, d *devRig) (a demoAttested) {
	if err := a.run(ctx, client, d); err != nil {
		a.Error = err.Error()
	}
	return a
}

func (a *demoAttested) run(ctx context.Context, client *awskms.Client, d *devRig) error {
	root, err := d.attestationRoot(ctx)
	if err != nil {
		return err
	}
	enclave, err := attesttest.NewRecipient(2048)
	if err != nil {
		return err
	}
	image, other := bytes.Repeat([]byte{0xe1}, 48), bytes.Repeat([]byte{0xe2}, 48)
	key, err := client.CreateKey(ctx, &awskms.CreateKeyInput{
		Description: aws.String("pinned to an image by strongroom demo"),
		Policy: aws.String(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Principal":{"AWS":"arn:%s:iam::%s:root"},"Action":"kms:*","Resource":"*"},
			{"Effect":"Deny","Principal":"*","Action":["kms:Decrypt","kms:GenerateDataKey*"],"Resource":"*","Condition":{
				"StringNotEquals":{"kms:RecipientAttestation:ImageSha384":%q}}}]}`, devPartition, defaultAccount, hex.EncodeToString(image))),
	})
	if err != nil {
		return err
	}
	ask := func(image []byte, age time.Duration) (*awskms.GenerateDataKeyPairOutput, error) {
		in := &awskms.GenerateDataKeyPairInput{KeyId: key.KeyMetadata.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP256, EncryptionContext: demoContext}
		if image != nil {
			document, err := root.Document(attesttest.Statement{
				Time: time.Now().Add(-age), PCRs: map[int][]byte{0: image}, PublicKey: enclave.PublicKey(),
			})
			if err != nil {
				return nil, err
			}
			in.Recipient = &types.RecipientInfo{KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256, AttestationDocument: document}
		}
		return client.GenerateDataKeyPair(ctx, in)
	}

	pair, err := ask(image, 0)
	if err != nil {
		return fmt.Errorf("GenerateDataKeyPair: %w", err)
	}
	private, err := enclave.Open(pair.CiphertextForRecipient)
	if err != nil {
		return fmt.Errorf("open the envelope: %w", err)
	}
	defer clear(private)
	if err := keyspec.Prove(keyspec.P256, pair.PublicKey, private); err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	a.Envelope, a.EnclaveOpens = len(pair.CiphertextForRecipient), pair.PrivateKeyPlaintext == nil

	_, err = ask(other, 0)
	a.OthersDenied = errorCode(err) == "AccessDeniedException"
	_, err = ask(nil, 0)
	a.NoneDenied = errorCode(err) == "AccessDeniedException"
	_, err = ask(image, 6*time.Minute)
	a.OldRefused = errorCode(err) == "ValidationException" && strings.Contains(err.Error(), "five-minute age limit")
	return nil
}
