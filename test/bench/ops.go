package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// An op is a request that is measured.
type op struct {
	name   string // in the table
	target string // the operation of KMS
	body   []byte
	slow   bool // RSA: fewer requests, since each is a search for primes
	free   bool // of a bar
	size   int  // of an answer, as the first one was

	keyID string // under which everything is
	blob  []byte // what is decrypted
}

// pairSpecs are the specs of data key pairs, and whether making one is slow.
var pairSpecs = []struct {
	name   string
	slow   bool
	judged bool // by its ratio to the empty server
}{
	{"ECC_NIST_P256", false, true}, {"ECC_SECG_P256K1", false, true}, {"ECC_NIST_EDWARDS25519", false, true}, {"SM2", false, true},
	{"ECC_NIST_P384", false, false}, {"ECC_NIST_P521", false, false},
	{"RSA_2048", true, false}, {"RSA_3072", true, false}, {"RSA_4096", true, false},
}

// prepare makes a key and a ciphertext, and asks for each operation whose name matches once, to see that it works and how long an answer is.
func prepare(address string, key accessKey, match *regexp.Regexp) ([]*op, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	ask := func(target string, in, out any) ([]byte, error) {
		body, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		answer, err := c.do(key.request(address, "/", target, body))
		if err == nil {
			err = json.Unmarshal(answer, out)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
		return body, nil
	}

	type object map[string]any
	var made struct{ KeyMetadata struct{ KeyId string } }
	if _, err := ask("CreateKey", object{}, &made); err != nil {
		return nil, err
	}
	plaintext := bytes.Repeat([]byte{0x42}, 32)
	encryptionContext := object{"purpose": "bench"}
	var sealed struct{ CiphertextBlob []byte }
	encrypt := object{"KeyId": made.KeyMetadata.KeyId, "Plaintext": plaintext, "EncryptionContext": encryptionContext}
	if _, err := ask("Encrypt", encrypt, &sealed); err != nil {
		return nil, err
	}
	decrypt := object{"CiphertextBlob": sealed.CiphertextBlob, "EncryptionContext": encryptionContext}
	var opened struct{ Plaintext []byte }
	if _, err := ask("Decrypt", decrypt, &opened); err != nil {
		return nil, err
	}
	if !bytes.Equal(opened.Plaintext, plaintext) {
		return nil, errors.New("decrypting gives another plaintext than was encrypted")
	}

	var ops []*op
	add := func(o op, in object) error {
		if !match.MatchString(o.name) {
			return nil
		}
		var any json.RawMessage
		if o.body, err = ask(o.target, in, &any); err != nil {
			return err
		}
		o.size, o.keyID, o.blob = len(any), made.KeyMetadata.KeyId, sealed.CiphertextBlob
		ops = append(ops, &o)
		return nil
	}
	err = errors.Join(
		add(op{name: "Encrypt", target: "Encrypt"}, encrypt),
		add(op{name: "Decrypt", target: "Decrypt"}, decrypt),
		add(op{name: "GenerateDataKey", target: "GenerateDataKey"},
			object{"KeyId": made.KeyMetadata.KeyId, "KeySpec": "AES_256", "EncryptionContext": encryptionContext}))
	for _, spec := range pairSpecs {
		err = errors.Join(err, add(op{name: "GenerateDataKeyPair " + spec.name, target: "GenerateDataKeyPair", slow: spec.slow, free: !spec.judged},
			object{"KeyId": made.KeyMetadata.KeyId, "KeyPairSpec": spec.name, "EncryptionContext": encryptionContext}))
	}
	return ops, err
}

// bars are the ratios that an operation is to reach next to the empty server, with one client and with eight.
func (o *op) bars(clients int) []bar {
	limits := map[int]float64{1: 0.50, 8: 0.40}
	if o.target == "GenerateDataKeyPair" {
		limits = map[int]float64{1: 0.45, 8: 0.35}
	}
	limit, judged := limits[clients]
	if !judged || o.free {
		return nil
	}
	return atLeast(limit)
}

// measureOps compares operations with the empty server, and with it a server that does nothing either, but to put a record on the disk.
func (b *bench) measureOps(ctx context.Context) error {
	s, key, err := startDev(ctx, b.program, filepath.Join(b.dir, "rig"), nil)
	if err != nil {
		return err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, b.ops)
	if err != nil {
		return err
	}
	if len(ops) == 0 {
		return fmt.Errorf("no operation matches %q", b.ops)
	}
	// The durable server does not depend on the operation, but for the size of an answer.
	for _, clients := range b.clients {
		o := ops[0]
		parts, err := inTurns(ctx, o, clients, b.length, key, b.empty.like(o, durably), b.empty.like(o, ""))
		if err != nil {
			return err
		}
		b.add(compare("nothing, but one durable write", clients, parts[0], emptyServer, parts[1], nil))
	}
	for _, o := range ops {
		for _, clients := range b.clients {
			parts, err := inTurns(ctx, o, clients, b.length, key, s.of(o), b.empty.like(o, ""), b.empty.like(o, durably))
			if err != nil {
				return fmt.Errorf("%s, %d clients: %w", o.name, clients, err)
			}
			r := compare(o.name, clients, parts[0], emptyServer, parts[1], o.bars(clients))
			durable := compare("", clients, parts[0], "", parts[2], nil)
			durable.settle()
			r.Note = fmt.Sprintf("%.2f of one durable write", durable.Ratio)
			b.add(r)
		}
	}
	return nil
}

const emptyServer = "empty server"
