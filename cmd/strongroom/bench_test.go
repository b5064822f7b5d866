package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"strongroom/awsapi"
)

// BenchmarkRequest is all that a request costs but HTTP: a signature, a decision, a call to a SoftHSM token in a worker, and a record. Where files can be in
// memory they are, so that a record costs what the processor has to do for it.
func BenchmarkRequest(b *testing.B) {
	dir := b.TempDir()
	if memory, err := os.MkdirTemp("/dev/shm", "strongroom-bench-"); err == nil {
		defer os.RemoveAll(memory)
		dir = memory
	}
	d := &devRig{dir: dir}
	log := slog.New(slog.DiscardHandler)
	r, err := d.open(b.Context(), log, devPool(0), defaultCache)
	if err != nil {
		b.Fatal(err)
	}
	defer r.close()
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.service.Run(ctx) }()
	defer func() { stop(); <-ended }()
	handler := awsapi.New(r.service, awsapi.Options{Log: log, Region: r.service.Region(), Counts: r.counts})

	type object map[string]any
	var made struct{ KeyMetadata struct{ KeyId string } }
	var sealed struct{ CiphertextBlob []byte }
	ask := func(operation string, in, out any) {
		b.Helper()
		w := httptest.NewRecorder()
		req, body := d.signed(b, operation, in)
		req.Body = io.NopCloser(bytes.NewReader(body))
		handler.ServeHTTP(w, req)
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil || w.Code != http.StatusOK {
			b.Fatal(operation, w.Code, w.Body, err)
		}
	}
	ask("CreateKey", object{}, &made)
	key, encryptionContext := made.KeyMetadata.KeyId, object{"purpose": "bench"}
	encrypt := object{"KeyId": key, "Plaintext": make([]byte, 32), "EncryptionContext": encryptionContext}
	ask("Encrypt", encrypt, &sealed)
	for _, op := range []struct {
		name string
		in   object
	}{
		{"Encrypt", encrypt},
		{"Decrypt", object{"CiphertextBlob": sealed.CiphertextBlob, "EncryptionContext": encryptionContext}},
		{"GenerateDataKey", object{"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": encryptionContext}},
		{"GenerateDataKeyPair", object{"KeyId": key, "KeyPairSpec": "ECC_NIST_P256", "EncryptionContext": encryptionContext}},
	} {
		b.Run("operation="+op.name, func(b *testing.B) {
			req, body := d.signed(b, op.name, op.in)
			w := &discard{header: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				req.Body = io.NopCloser(bytes.NewReader(body))
				if handler.ServeHTTP(w, req); w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
		})
	}
}

// signed returns a request as net/http would hand it to the handler, but for its body.
func (d *devRig) signed(b *testing.B, operation string, in any) (*http.Request, []byte) {
	b.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(b.Context(), aws.Credentials{AccessKeyID: d.key.ID, SecretAccessKey: d.key.Secret}, r, hex.EncodeToString(sum[:]),
		"kms", devRegion, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return r, body
}

// A discard is an answer that goes nowhere.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
