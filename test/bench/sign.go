package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// An accessKey signs requests.
type accessKey struct{ id, secret, region string }

// request returns a whole HTTP/1.1 request for an operation of KMS, signed with Signature Version 4 as of now. It may be sent again and again
// until the signature is five minutes old.
func (k accessKey) request(address, path, operation string, body []byte) []byte {
	const contentType = "application/x-amz-json-1.1"
	now := time.Now().UTC()
	date, day := now.Format("20060102T150405Z"), now.Format("20060102")
	target := "TrentService." + operation
	canonical := fmt.Sprintf("POST\n%s\n\ncontent-type:%s\nhost:%s\nx-amz-date:%s\nx-amz-target:%s\n\n%s\n%x",
		path, contentType, address, date, target, signedHeaders, sha256.Sum256(body))
	scope := day + "/" + k.region + "/kms/aws4_request"
	text := fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", date, scope, sha256.Sum256([]byte(canonical)))

	key := []byte("AWS4" + k.secret)
	for _, part := range []string{day, k.region, "kms", "aws4_request"} {
		key = mac(key, part)
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: strongroom-bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"X-Amz-Date: %s\r\nX-Amz-Target: %s\r\n"+
		"Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s\r\n\r\n",
		path, address, contentType, len(body), date, target, k.id, scope, signedHeaders, hex.EncodeToString(mac(key, text)))
	return append([]byte(head), body...)
}

const signedHeaders = "content-type;host;x-amz-date;x-amz-target"

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
