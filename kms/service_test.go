package kms_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/kms"
	"strongroom/kms/audit"
	"strongroom/softhsm"
	"strongroom/store"
)

// token is the one token of the test binary: SoftHSM has one configuration a process.
var token *pkcs11.Token

func TestMain(m *testing.M) {
	if os.Getenv(sealerVariable) != "" {
		os.Exit(sealer(os.Args[1:]))
	}
	os.Exit(withToken(m.Run))
}

func withToken(run func() int) int {
	dir, err := os.MkdirTemp("", "kms-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		var config pkcs11.Config
		if config, err = softhsm.New(context.Background(), dir); err == nil {
			token, err = pkcs11.Init(context.Background(), config)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "a SoftHSM token is needed:", err)
		return 1
	}
	defer token.Close()
	return run()
}

const (
	account = "111122223333"
	region  = "local-1"
	arnBase = "arn:aws:kms:local-1:111122223333:"
)

var root = kms.Caller{Account: account, Principal: "arn:aws:iam::111122223333:root"}

// A rig is a service on the test token and a store of its own.
type rig struct {
	*kms.Service
	t     testing.TB
	store *store.DB
	url   string // of store
	audit *recorder
}

// newRig returns a service over the test token, or over the device given.
func newRig(t testing.TB, device hsm.Device) *rig {
	t.Helper()
	if device == nil {
		device = token
	}
	url := "sqlite:" + filepath.Join(t.TempDir(), "strongroom.db")
	must(t, store.Create(t.Context(), url))
	db, err := store.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	must(t, kms.Init(t.Context(), kms.InitOptions{
		Device: token, Store: db, Partition: "aws", Region: region, Account: account, Key: kms.NewAccessKey(),
	}))
	r := &rig{t: t, store: db, url: url, audit: new(recorder)}
	s, err := kms.New(t.Context(), kms.Options{Device: device, Store: db, Audit: r.audit, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	r.Service = s
	must(t, s.RecordEvents(t.Context())) // of Init
	r.audit.records = nil
	return r
}

func newService(t testing.TB, db kms.Store, device hsm.Device) *kms.Service {
	t.Helper()
	s, err := kms.New(t.Context(), kms.Options{Device: device, Store: db, Audit: new(recorder), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	return s
}

// newServiceWith returns a service with limits of its own.
func newServiceWith(t testing.TB, db kms.Store, limits *kms.Limits) *kms.Service {
	t.Helper()
	s, err := kms.New(t.Context(), kms.Options{Device: token, Store: db, Audit: new(recorder), Log: slog.New(slog.DiscardHandler), Limits: limits})
	must(t, err)
	return s
}

// records returns what was recorded so far.
func (r *rig) records() []audit.Record {
	r.audit.mu.Lock()
	defer r.audit.mu.Unlock()
	return slices.Clone(r.audit.records)
}

// A recorder keeps audit records in memory. It is safe for concurrent use.
type recorder struct {
	mu      sync.Mutex
	records []audit.Record
	err     error // what Append and Err answer

	announced int // by Expect
}

func (r *recorder) Append(_ context.Context, record *audit.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.records = append(r.records, *record)
	}
	return r.err
}

func (r *recorder) Expect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.announced++
}

func (r *recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newKey makes a key and returns what is told of it.
func (r *rig) newKey() kms.KeyMetadata {
	r.t.Helper()
	resp, err := r.CreateKey(r.t.Context(), root, &kms.CreateKeyRequest{})
	must(r.t, err)
	return resp.KeyMetadata
}

func (r *rig) encrypt(key, plaintext string, encryptionContext map[string]string) []byte {
	r.t.Helper()
	resp, err := r.Encrypt(r.t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte(plaintext), EncryptionContext: encryptionContext})
	must(r.t, err)
	return resp.CiphertextBlob
}

// refusal fails the test unless err is a refusal of this kind and these words.
func refusal(t testing.TB, err error, code kms.Code, detail string) {
	t.Helper()
	var e *kms.Error
	if !errors.As(err, &e) {
		t.Errorf("got %v, want %v", err, code)
		return
	}
	if e.Code != code || e.Detail != detail {
		t.Errorf("got %v %q, want %v %q", e.Code, e.Detail, code, detail)
	}
}
