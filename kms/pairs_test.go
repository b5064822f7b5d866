package kms_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"strongroom/keyspec"
	"strongroom/kms"
)

// A shop gives out pairs, and keeps who got them.
type shop struct {
	mu    sync.Mutex
	names []string
	pairs []*keyspec.Pair
	err   error
}

func (s *shop) Get(ctx context.Context, principal string, spec keyspec.Spec) (*keyspec.Pair, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, principal)
	if s.err != nil {
		return nil, s.err
	}
	pair, err := spec.Generate()
	if err == nil {
		s.pairs = append(s.pairs, &keyspec.Pair{Spec: spec, Public: pair.Public, Private: pair.Private}) // the same arrays
	}
	return pair, err
}

// Pairs are asked for in the name of the user or the role, and what of them is not handed out is wiped.
func TestPairsFromElsewhere(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	shop := &shop{}
	s, err := kms.New(t.Context(), kms.Options{Device: token, Store: r.store, Audit: r.audit, Log: slog.New(slog.DiscardHandler), Pairs: shop})
	must(t, err)
	out, err := s.GenerateDataKeyPair(t.Context(), root, &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.P256})
	must(t, err)
	if string(out.PublicKey) != string(shop.pairs[0].Public) || string(out.PrivateKeyPlaintext) != string(shop.pairs[0].Private) {
		t.Error("the answer has another pair")
	}
	_, err = s.GenerateDataKeyPairWithoutPlaintext(t.Context(), root, &kms.GenerateDataKeyPairWithoutPlaintextRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.Ed25519})
	must(t, err)
	if strings.Trim(string(shop.pairs[1].Private), "\x00") != "" {
		t.Error("a private key that was not answered with is not wiped")
	}
	if shop.names[0] != root.Principal || len(shop.names) != 2 {
		t.Errorf("asked in the names of %q", shop.names)
	}
	session := r.add("arn:aws:iam::"+account+":role/batch", allow("kms:*", "*"))
	session.Principal, session.Role = "arn:aws:sts::"+account+":assumed-role/batch/x", session.Principal
	if _, err = s.GenerateDataKeyPair(t.Context(), session, &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.P256}); err == nil {
		if name := shop.names[len(shop.names)-1]; name != session.Role {
			t.Errorf("a session asks in the name of %q", name)
		}
	} else {
		t.Error(err)
	}
	shop.err = errors.New("sold out")
	_, err = s.GenerateDataKeyPair(t.Context(), root, &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.RSA2048})
	if !errors.Is(err, shop.err) || errors.As(err, new(*kms.Error)) {
		t.Errorf("without pairs: %v", err)
	}
}
