package awsapi

import (
	"testing"

	"github.com/go-json-experiment/json"

	"strongroom/keyspec"
	"strongroom/kms"
)

// BenchmarkEncode makes answers as [op] does.
func BenchmarkEncode(b *testing.B) {
	const key = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	for _, bb := range []struct {
		operation string
		resp      any
	}{
		{"GenerateDataKey", &kms.GenerateDataKeyResponse{CiphertextBlob: make([]byte, 107), Plaintext: make([]byte, 32), KeyID: key, KeyMaterialID: key[20:]}},
		{"GenerateDataKeyPair", &kms.GenerateDataKeyPairResponse{
			PrivateKeyCiphertextBlob: make([]byte, 213), PrivateKeyPlaintext: make([]byte, 138), PublicKey: make([]byte, 91),
			KeyID: key, KeyPairSpec: keyspec.P256, KeyMaterialID: key[20:],
		}},
	} {
		b.Run("operation="+bb.operation, func(b *testing.B) {
			x := exchanges.New().(*exchange)
			b.ReportAllocs()
			for b.Loop() {
				x.out.Reset()
				if err := json.MarshalWrite(&x.out, bb.resp); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(x.out.Len()))
		})
	}
}
