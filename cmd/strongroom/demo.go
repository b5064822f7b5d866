package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"

	"strongroom/keyspec"
	"strongroom/kms/audit"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:         "demo",
		OnUsageError: onUsageError,
		Usage:        "do the main job once, on a token, a store and a server made for it, and prove the result",
		Description: `Makes one data key pair of each spec over HTTP with signed requests, decrypts each private key again, and proves that
it belongs to the public key and works; and one whose private key only an attested enclave can read. Needs SoftHSM 2
(Debian: apt-get install softhsm2). Leaves nothing behind. Exit code 0 only if every proof held.

Example:  strongroom demo --json | jq .ok`,
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return runDemo(c.Context, c.App.Writer, c.App.ErrWriter, c.Bool("json"))
		},
	}
}

// A demoResult is what `demo --json` prints.
type demoResult struct {
	Endpoint string     `json:"endpoint"`
	KeyArn   string     `json:"keyArn"`
	Alias    string     `json:"alias"`
	Pairs    []demoPair `json:"pairs"`

	Attested demoAttested `json:"attested"`
	Audit    demoAudit    `json:"audit"`
	Seconds  float64      `json:"seconds"`
	OK       bool         `json:"ok"`
}

// A demoPair is a row of the table: one pair, and what was proved of it. Sizes are bytes.
type demoPair struct {
	Spec           string  `json:"spec"`
	PublicKey      int     `json:"publicKeyBytes"`
	PrivateKey     int     `json:"privateKeyBytes"`
	Ciphertext     int     `json:"ciphertextBytes"`
	MakeMillis     float64 `json:"generateMillis"`
	DecryptMillis  float64 `json:"decryptMillis"`
	DecryptsSame   bool    `json:"decryptsToTheSame"`
	PairWorks      bool    `json:"pairWorks"`
	ContextRefused bool    `json:"otherContextRefused"`
	Error          string  `json:"error,omitempty"`
}

// A demoAudit is what was found of the audit log when the server had stopped.
type demoAudit struct {
	Records uint64 `json:"records"`
	Error   string `json:"error,omitempty"`
}

func (p *demoPair) ok() bool {
	return p.DecryptsSame && p.PairWorks && p.ContextRefused && p.Error == ""
}

// proof says in a few words what was proved, or what was not.
func (p *demoPair) proof() string {
	switch {
	case p.Error != "":
		return "FAILED: " + p.Error
	case !p.ok():
		return "FAILED"
	case bytes.HasPrefix([]byte(p.Spec), []byte("RSA")), p.Spec == "SM2":
		return "same key, signs and verifies, encrypts and decrypts, other context refused"
	}
	return "same key, signs and verifies, other context refused"
}

var (
	demoContext  = map[string]string{"purpose": "demo", "tenant": "alice"}
	otherContext = map[string]string{"purpose": "demo", "tenant": "mallory"}
)

const demoAlias = "alias/demo"

// runDemo serves a rig in a temporary directory and is its client.
func runDemo(ctx context.Context, stdout, stderr io.Writer, asJSON bool) (err error) {
	dir, err := os.MkdirTemp("", "strongroom-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	began := time.Now()
	log := newLogger(stderr, "error")
	hardenProcess(log)
	tuneRuntime(defaultCache)
	narrate := stdout
	if asJSON {
		narrate = io.Discard
	}
	fmt.Fprintln(narrate, "Starting: a SoftHSM token, a SQLite store and a server, in a temporary directory.")
	result := &demoResult{Alias: demoAlias}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var rig *devRig
	err = runDev(ctx, log, dir, "127.0.0.1:0", "", devPool(0), defaultCache, func(d *devRig) error {
		defer stop()
		rig = d
		return result.run(ctx, d, narrate, stderr)
	})
	if err != nil {
		return err
	}
	if err := result.audit(rig); err != nil {
		result.OK, result.Audit.Error = false, err.Error()
		fmt.Fprintf(narrate, "\nThe audit log does NOT verify: %v\n", err)
	} else {
		fmt.Fprintf(narrate, "\nThe audit log of %d records verifies: signed by the token to its last line.\n", result.Audit.Records)
	}
	result.Seconds = time.Since(began).Seconds()
	if asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(result); err != nil {
			return err
		}
	}
	if !result.OK {
		return errors.New("the demonstration failed: see above")
	}
	fmt.Fprintf(narrate, `
All %d private keys came back from the token, and only under their own context. Nothing was left behind (%.1f s).

Next:  strongroom dev --dir ./rig           the same rig, to stay
       . ./rig/env                          in another terminal: the usual AWS variables
       aws kms list-keys                    or any AWS SDK, unchanged
`, len(result.Pairs), result.Seconds)
	return nil
}

// run is the story itself. It fills in the result; an error means that the story could not be told at all.
func (r *demoResult) run(ctx context.Context, d *devRig, out, progress io.Writer) error {
	client := awskms.New(awskms.Options{
		BaseEndpoint: aws.String(d.endpoint),
		Region:       devRegion,
		Credentials:  credentials.NewStaticCredentialsProvider(d.key.ID, d.key.Secret, ""),
	})
	key, err := client.CreateKey(ctx, &awskms.CreateKeyInput{Description: aws.String("made by strongroom demo")})
	if err != nil {
		return err
	}
	_, err = client.CreateAlias(ctx, &awskms.CreateAliasInput{AliasName: aws.String(demoAlias), TargetKeyId: key.KeyMetadata.KeyId})
	if err != nil {
		return err
	}
	r.Endpoint, r.KeyArn = d.endpoint, *key.KeyMetadata.Arn
	fmt.Fprintf(out, "Server    %s, requests signed with Signature Version 4\nKey       %s\n          AES-256, made in the token, not extractable; also called %s\nContext   purpose=demo, tenant=alice\n\n",
		r.Endpoint, r.KeyArn, demoAlias)

	const row = "%-21s  %6s  %7s  %6s  %8s  %7s  %s\n"
	fmt.Fprintf(out, row, "spec", "public", "private", "sealed", "make", "decrypt", "proof")
	fmt.Fprintf(out, row, "", "bytes", "bytes", "bytes", "ms", "ms", "")
	r.OK = true
	for _, spec := range keyspec.All() {
		pair := makeDemoPair(ctx, client, spec, progress)
		fmt.Fprintf(out, row, pair.Spec, fmt.Sprint(pair.PublicKey), fmt.Sprint(pair.PrivateKey), fmt.Sprint(pair.Ciphertext),
			fmt.Sprintf("%.1f", pair.MakeMillis), fmt.Sprintf("%.1f", pair.DecryptMillis), pair.proof())
		r.Pairs = append(r.Pairs, pair)
		r.OK = r.OK && pair.ok()
	}
	r.Attested = makeDemoAttested(ctx, client, d)
	r.OK = r.OK && r.Attested.ok()
	fmt.Fprintf(out, "\nEnclave   a pair whose private key comes sealed for an attested image alone, %d bytes:\n          %s\n", r.Attested.Envelope, r.Attested.proof())
	return nil
}

// audit verifies the audit log of a rig that has stopped.
func (r *demoResult) audit(d *devRig) error {
	key, err := audit.ParsePublicKey(d.auditKey)
	if err != nil {
		return err
	}
	files, err := audit.Files(d.auditDir())
	if err != nil {
		return err
	}
	found, err := audit.Verify(key, files, audit.VerifyOptions{})
	if err != nil {
		return err
	}
	r.Audit.Records = found.Records
	if found.Finding != nil {
		return found.Finding
	}
	if !found.Closed {
		return fmt.Errorf("its last %d records are not signed", found.Unsealed)
	}
	return nil
}

// makeDemoPair makes a pair and proves it.
func makeDemoPair(ctx context.Context, client *awskms.Client, spec keyspec.Spec, progress io.Writer) demoPair {
	p := demoPair{Spec: spec.String()}
	fail := func(what string, err error) demoPair {
		p.Error = fmt.Sprintf("%s: %v", what, err)
		return p
	}

	stop := showProgress(progress, p.Spec)
	began := time.Now()
	made, err := client.GenerateDataKeyPair(ctx, &awskms.GenerateDataKeyPairInput{
		KeyId: aws.String(demoAlias), KeyPairSpec: types.DataKeyPairSpec(p.Spec), EncryptionContext: demoContext,
	})
	p.MakeMillis = millis(began)
	stop()
	if err != nil {
		return fail("GenerateDataKeyPair", err)
	}
	defer clear(made.PrivateKeyPlaintext)
	p.PublicKey, p.PrivateKey, p.Ciphertext = len(made.PublicKey), len(made.PrivateKeyPlaintext), len(made.PrivateKeyCiphertextBlob)

	began = time.Now()
	decrypted, err := client.Decrypt(ctx, &awskms.DecryptInput{CiphertextBlob: made.PrivateKeyCiphertextBlob, EncryptionContext: demoContext})
	p.DecryptMillis = millis(began)
	if err != nil {
		return fail("Decrypt", err)
	}
	defer clear(decrypted.Plaintext)
	p.DecryptsSame = bytes.Equal(decrypted.Plaintext, made.PrivateKeyPlaintext)
	if err := keyspec.Prove(spec, made.PublicKey, decrypted.Plaintext); err != nil {
		return fail("proof", err)
	}
	p.PairWorks = true

	var invalid *types.InvalidCiphertextException
	_, err = client.Decrypt(ctx, &awskms.DecryptInput{CiphertextBlob: made.PrivateKeyCiphertextBlob, EncryptionContext: otherContext})
	if !errors.As(err, &invalid) {
		return fail("a changed context was not refused", err)
	}
	p.ContextRefused = true
	return p
}

func millis(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

// showProgress tells somebody at a terminal that work is going on, if it takes long enough to be wondered about. The function that it returns ends it
// and clears the line.
func showProgress(w io.Writer, what string) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		began := time.Now()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(w, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprintf(w, "\r%s: searching for primes, %.1f s", what, time.Since(began).Seconds())
			}
		}
	}()
	return func() { close(done); <-ended }
}
