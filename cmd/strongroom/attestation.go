package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// AttestationConfig says whose attestation documents are believed, in requests with a Recipient.
type AttestationConfig struct {
	// Anchors are the roots that are trusted. Default: the root of AWS alone, as "aws". Who lists any, lists all; an empty list refuses every document.
	Anchors []AnchorConfig `toml:"anchors"`

	// AllowDebugEnclaves accepts documents of enclaves in debug mode, whose image is not measured and whose memory their host can read. Default: false.
	AllowDebugEnclaves bool `toml:"allow_debug_enclaves"`

	// MaxAgeSeconds is how old a document may be: from 1 to 300. Default: 300, as with AWS KMS.
	MaxAgeSeconds int `toml:"max_age_seconds"`

	// MaxAheadSeconds is how far a document's clock may be ahead of the server's: from 0 to 300. Default: 60.
	MaxAheadSeconds int `toml:"max_ahead_seconds"`
}

// AnchorConfig is one root. Whoever holds its key can make documents that say anything.
type AnchorConfig struct {
	// Name is what the condition key strongroom:RecipientAttestation:Root has in requests whose document leads here. Required.
	Name string `toml:"name"`

	// Certificate is the absolute path of the root's certificate, in PEM: ECDSA with P-384 and SHA-384, at most 1024 bytes in DER. Without it, "aws" is
	// the root of AWS.
	Certificate string `toml:"certificate"`

	// Kinds are the documents that it is trusted with: "enclave", "nitrotpm". Default: both.
	Kinds []attest.Kind `toml:"kinds"`

	// Accounts are whose requests and keys it is trusted for. Default: all.
	Accounts []string `toml:"accounts"`
}

func defaultAttestation() AttestationConfig {
	return AttestationConfig{
		MaxAgeSeconds:   int(attest.MaxAge / time.Second),
		MaxAheadSeconds: int(attest.MaxAhead / time.Second),
	}
}

// options returns what the configuration says, with the certificates that it names.
func (c *AttestationConfig) options(ctx context.Context) (attest.Options, error) {
	o := attest.Options{
		Anchors:    []attest.Anchor{attest.AWSRoot()},
		AllowDebug: c.AllowDebugEnclaves,
		MaxAge:     time.Duration(c.MaxAgeSeconds) * time.Second,
		MaxAhead:   time.Duration(c.MaxAheadSeconds) * time.Second,
	}
	if c.MaxAheadSeconds == 0 {
		o.MaxAhead = -1 // which means what 0 says here
	}
	if c.Anchors == nil {
		return o, nil
	}
	o.Anchors = nil
	for _, a := range c.Anchors {
		anchor := attest.AWSRoot()
		if a.Certificate != "" {
			der, err := readCertificate(ctx, a.Certificate)
			if err != nil {
				return attest.Options{}, fmt.Errorf("anchor %q: %w", a.Name, err)
			}
			anchor = attest.Anchor{DER: der}
		} else if a.Name != attest.AWSName {
			return attest.Options{}, fmt.Errorf("anchor %q: certificate is required", a.Name)
		}
		anchor.Name, anchor.Kinds, anchor.Accounts = a.Name, a.Kinds, a.Accounts
		o.Anchors = append(o.Anchors, anchor)
	}
	return o, nil
}

var accountPattern = regexp.MustCompile(`^\d{12}$`)

// check returns what is wrong, each named as the reader wrote it.
func (c *AttestationConfig) check(ctx context.Context) []string {
	var faults []string
	fault := func(key, format string, args ...any) {
		faults = append(faults, "attestation."+key+": "+fmt.Sprintf(format, args...))
	}
	if most := int(attest.MaxAge / time.Second); c.MaxAgeSeconds < 1 || c.MaxAgeSeconds > most {
		fault("max_age_seconds", "%d is not from 1 to %d", c.MaxAgeSeconds, most)
	}
	if c.MaxAheadSeconds < 0 || c.MaxAheadSeconds > 300 {
		fault("max_ahead_seconds", "%d is not from 0 to 300", c.MaxAheadSeconds)
	}
	for i, a := range c.Anchors {
		key := fmt.Sprintf("anchors[%d]", i)
		if a.Certificate != "" && !filepath.IsAbs(a.Certificate) {
			fault(key+".certificate", "%q is not an absolute path", a.Certificate)
		}
		if a.Kinds != nil && len(a.Kinds) == 0 {
			fault(key+".kinds", "leave it out to trust the root with all kinds")
		}
		if a.Accounts != nil && len(a.Accounts) == 0 {
			fault(key+".accounts", "leave it out to trust the root for all accounts")
		}
		for _, id := range a.Accounts {
			if !accountPattern.MatchString(id) {
				fault(key+".accounts", "%q is not an account of 12 digits", id)
			}
		}
	}
	if len(faults) > 0 {
		return faults
	}
	o, err := c.options(ctx)
	if err == nil {
		_, err = attest.New(o)
	}
	if err != nil {
		fault("anchors", "%v", err)
	}
	return faults
}

// reportAnchors tells the operator whose documents are believed, and what about it is dangerous or in vain.
func reportAnchors(log *slog.Logger, o attest.Options) {
	var names []string
	for _, a := range o.Anchors {
		names = append(names, a.Name)
		if c, err := x509.ParseCertificate(a.DER); err == nil && (time.Now().Before(c.NotBefore) || time.Now().After(c.NotAfter)) {
			log.Warn("a root of attestation documents is not valid now: none that leads there is accepted", "anchor", a.Name, "from", c.NotBefore, "until", c.NotAfter)
		}
	}
	log.Info("attestation documents are accepted from these roots", "anchors", names)
	if o.AllowDebug {
		log.Warn("attestation documents of enclaves in debug mode are accepted, which vouch for no image")
	}
}

// readCertificate returns the one certificate in a PEM file, in DER.
func readCertificate(ctx context.Context, path string) ([]byte, error) {
	b, err := readFile(ctx, path, maxPEM)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: holds no certificate in PEM", path)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("%s: holds more than the root's certificate", path)
	}
	return block.Bytes, nil
}

// devAnchor is the name of the root that a rig has of its own.
const devAnchor = "dev"

func (d *devRig) attestationDir() string { return filepath.Join(d.dir, "attestation") }

// The root of a rig and its key, in PEM. `strongroom attest make` signs with it.
func (d *devRig) attestationRootFile() string { return filepath.Join(d.attestationDir(), "root.pem") }
func (d *devRig) attestationKeyFile() string  { return filepath.Join(d.attestationDir(), "root.key") }

// attestationRoot returns the root that `attest make` signs with for this rig.
func (d *devRig) attestationRoot(ctx context.Context) (*attesttest.Root, error) {
	certificate, err := readFile(ctx, d.attestationRootFile(), maxPEM)
	if err != nil {
		return nil, err
	}
	key, err := readFile(ctx, d.attestationKeyFile(), maxPEM)
	if err != nil {
		return nil, err
	}
	return attesttest.ParseRoot(certificate, key)
}

// attestation returns whose documents the rig believes: those of AWS and, if it has been made, of its own root.
func (d *devRig) attestation(ctx context.Context) (attest.Options, error) {
	o := attest.Options{Anchors: []attest.Anchor{attest.AWSRoot()}, AllowTestRoots: true}
	der, err := readCertificate(ctx, d.attestationRootFile())
	if err == nil {
		o.Anchors = append(o.Anchors, attest.Anchor{Name: devAnchor, DER: der})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return attest.Options{}, err
	}
	return o, nil
}

// makeAttestationRoot makes the rig's root, if it has none.
func (d *devRig) makeAttestationRoot(ctx context.Context) error {
	if _, err := d.attestationRoot(ctx); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	root, err := attesttest.NewRoot(attesttest.RootOptions{Name: "strongroom dev"})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.attestationDir(), 0o700); err != nil {
		return err
	}
	certificate, key := root.PEM()
	// The certificate is last: where it is, its key is.
	if err := writeFileAtomically(d.attestationKeyFile(), key); err != nil {
		return err
	}
	return writeFileAtomically(d.attestationRootFile(), certificate)
}
