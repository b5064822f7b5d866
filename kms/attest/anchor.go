package attest

import (
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// An Anchor is a root that an operator trusts. Whoever holds its key can make a document that says anything, so an anchor can be kept to some
// kinds of documents and to some accounts, and policies can ask for its name.
type Anchor struct {
	Name     string   // of 1 to 64 letters, digits, ".", "_" and "-"
	DER      []byte   // the certificate
	Kinds    []Kind   // of documents; nil means all
	Accounts []string // 12 digits each, whose requests and keys it counts for; nil means all
}

// AWSName is the name of [AWSRoot].
const AWSName = "aws"

//go:embed aws_root.pem
var awsRootPEM []byte

// awsRootHash is the SHA-256 of the root as AWS has published it since 2019, valid until 2049-10-28 (AWS Nitro Enclaves User Guide, "Verifying the root
// of trust"). It is for the commercial partitions; China and GovCloud may have others, which are for the operator to configure.
const awsRootHash = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"

// AWSRoot returns the root of AWS Nitro Enclaves and NitroTPM, trusted for all accounts.
func AWSRoot() Anchor {
	block, _ := pem.Decode(awsRootPEM)
	if block == nil {
		panic("attest: the root of AWS is not PEM")
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != awsRootHash {
		panic("attest: the root of AWS is not the one that it published")
	}
	return Anchor{Name: AWSName, DER: block.Bytes}
}

// TestRootUnit is the organizational unit in the subject of the roots of test rigs, by which they are known.
const TestRootUnit = "Strongroom test rig"

// An anchor is an Anchor that was checked.
type anchor struct {
	Anchor
	certificate *x509.Certificate
	pool        *x509.CertPool // of the certificate alone
}

var anchorName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// newAnchor checks an Anchor. The error says what is wrong with it.
func newAnchor(given Anchor) (*anchor, error) {
	if !anchorName.MatchString(given.Name) {
		return nil, errors.New(`a name is 1 to 64 letters, digits, ".", "_" and "-"`)
	}
	if len(given.DER) > maxCertificate {
		return nil, fmt.Errorf("a certificate of %d bytes is more than documents can hold, %d", len(given.DER), maxCertificate)
	}
	c, err := x509.ParseCertificate(given.DER)
	if err != nil {
		return nil, err
	}
	if err := checkCA(c); err != nil {
		return nil, err
	}
	for _, k := range given.Kinds {
		if !slices.Contains(Kinds, k) {
			return nil, fmt.Errorf("there is no kind %q", k)
		}
	}
	a := &anchor{Anchor: given, certificate: c, pool: x509.NewCertPool()}
	a.pool.AddCert(c)
	return a, nil
}

func (a *anchor) trustedWith(k Kind) bool { return a.Kinds == nil || slices.Contains(a.Kinds, k) }

func (a *anchor) trustedFor(account string) bool {
	return a.Accounts == nil || slices.Contains(a.Accounts, account)
}
