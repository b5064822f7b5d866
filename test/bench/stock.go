package main

import (
	"bytes"
	"context"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

var stockClients = []int{1, 8}

// stock returns what has the AWS SDK ask for each operation. Each client has a connection that is kept, as all others here.
func (k accessKey) stock(ctx context.Context, endpoint string, keyID string, blob []byte) map[string]func() error {
	c := kms.New(kms.Options{
		BaseEndpoint: aws.String("http://" + endpoint), Region: k.region, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(k.id, k.secret, ""),
		HTTPClient:  &http.Client{Transport: &http.Transport{}},
	})
	encryptionContext := map[string]string{"purpose": "bench"}
	return map[string]func() error{
		"Encrypt": func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &keyID, Plaintext: bytes.Repeat([]byte{0x42}, 32), EncryptionContext: encryptionContext})
			return err
		},
		"Decrypt": func() error {
			_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: encryptionContext})
			return err
		},
		"GenerateDataKey": func() error {
			_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &keyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: encryptionContext})
			return err
		},
	}
}

// measureStock has the stock client of Go ask both servers: what a user sees of the difference.
func (b *bench) measureStock(ctx context.Context) error {
	s, key, err := startDev(ctx, b.program, filepath.Join(b.dir, "stock"), nil)
	if err != nil {
		return err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^(Encrypt|Decrypt|GenerateDataKey)$`))
	if err != nil {
		return err
	}
	for _, o := range ops {
		for _, clients := range stockClients {
			ask := func(endpoint string, length time.Duration) (slice, error) {
				var asks []func() error
				for range clients {
					asks = append(asks, key.stock(ctx, endpoint, o.keyID, o.blob)[o.name])
					if err := asks[len(asks)-1](); err != nil {
						return slice{}, err
					}
				}
				return load(ctx, clients, clients, length, func(i int) error { return asks[i]() })
			}
			var as, bs []slice
			for range rounds {
				part, err := ask(s.address, b.length/rounds)
				if err != nil {
					return err
				}
				as = append(as, part)
				if part, err = ask(b.empty.address+"/"+strconv.Itoa(o.size), b.length/rounds); err != nil {
					return err
				}
				bs = append(bs, part)
			}
			b.add(compare(o.name+", stock client", clients, as, "empty server, stock client", bs, nil))
		}
	}
	return nil
}
