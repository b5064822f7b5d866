package test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
	"strongroom/test/tokens"
)

// A tokenKind is a kind of token, and how the rigs of the tests serve with it. A rig has its store and its audit log at the same places with all.
type tokenKind struct {
	token   func(ctx context.Context, dir string) (pkcs11.Config, error) // of the rig in dir
	command func(dir string) (args []string, err error)                  // that serves, after everything was made that it needs
	env     func(s *server) (map[string]string, error)                   // fs.ErrNotExist until it answers
	site    func(dir string) []string                                    // options by which other commands find the rig
	inUse   string                                                       // what a second server on one rig says
}

// These choose the kind of token, softhsm if nothing does, and a program that is built already.
const (
	kindOfToken     = "STRONGROOM_TEST_TOKEN"
	programOfParent = "STRONGROOM_TEST_PROGRAM"
)

var kind = kinds[cmp.Or(os.Getenv(kindOfToken), "softhsm")]

var kinds = map[string]tokenKind{
	// `strongroom dev` makes all by itself.
	"softhsm": {
		token: func(ctx context.Context, dir string) (pkcs11.Config, error) {
			return softhsm.New(ctx, filepath.Join(dir, "softhsm"))
		},
		command: func(dir string) ([]string, error) { return []string{"dev", "--dir", dir}, nil },
		env:     func(s *server) (map[string]string, error) { return readEnv(filepath.Join(s.dir, "env")) },
		site:    func(dir string) []string { return []string{"--dir", dir} },
		inUse:   "another strongroom dev is using",
	},
	// As an operator would: a configuration, `strongroom init`, `strongroom serve`.
	"nss": {
		token: func(ctx context.Context, dir string) (pkcs11.Config, error) {
			return tokens.NSS(ctx, filepath.Join(dir, "nss"))
		},
		command: serveNSS,
		env:     servedEnv,
		site:    func(dir string) []string { return []string{"--config", filepath.Join(dir, "strongroom.toml")} },
		inUse:   "is in use by another strongroom",
	},
}

// serveNSS makes a deployment in dir, if there is none, whose token is NSS's.
func serveNSS(dir string) ([]string, error) {
	token, err := tokens.NSS(context.Background(), filepath.Join(dir, "nss")) // also when it is there: this sets the environment
	if err != nil {
		return nil, err
	}
	return serveConfigured(dir, fmt.Sprintf(`listen = "127.0.0.1:0"
store = "sqlite:%[1]s/strongroom.db"
[hsm]
module = %[2]q
init_args = %[3]q
token_label = %[4]q
pin_file = "%[1]s/nss/password"
[pool]
rsa_2048 = 0
rsa_3072 = 0
rsa_4096 = 0
ecc_nist_p384 = 0
ecc_nist_p521 = 0
`, dir, token.Module, token.InitArgs, token.Label))
}

// serveConfigured makes a deployment in dir, if there is none, from a configuration.
func serveConfigured(dir, text string) ([]string, error) {
	config, credentials := filepath.Join(dir, "strongroom.toml"), filepath.Join(dir, "credentials.json")
	args := []string{"serve", "--config", config}
	if _, err := os.Stat(credentials); err == nil {
		return args, nil
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var stderr strings.Builder
	init := exec.Command(program, "init", "--config", config, "--json")
	init.Stderr = &stderr
	out, err := init.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", init.Args, err, stderr.String())
	}
	return args, os.WriteFile(credentials, out, 0o600)
}

var serving = regexp.MustCompile(`msg=serving address=(\S+)`)

// servedEnv returns for a rig of `serve` what DIR/env says in one of `dev`.
func servedEnv(s *server) (map[string]string, error) {
	address := serving.FindStringSubmatch(s.log.String())
	if address == nil {
		return nil, fs.ErrNotExist
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "credentials.json"))
	if err != nil {
		return nil, err
	}
	var key struct{ AccessKeyId, SecretAccessKey, Account, Region string }
	if err := json.Unmarshal(b, &key); err != nil {
		return nil, err
	}
	endpoint := "http://" + address[1]
	return map[string]string{
		"AWS_ENDPOINT_URL_KMS": endpoint, "AWS_ENDPOINT_URL_STS": endpoint, "AWS_REGION": key.Region, "AWS_DEFAULT_REGION": key.Region,
		"AWS_ACCESS_KEY_ID": key.AccessKeyId, "AWS_SECRET_ACCESS_KEY": key.SecretAccessKey, "STRONGROOM_ACCOUNT": key.Account,
	}, nil
}

// onNSS are the tests that TestNSS runs: what depends on the token most. Any test but those of `dev` itself can be run so.
var onNSS = []string{
	"TestGenerateDataKeyPair", "TestGenerateDataKeySizes", "TestGenerateRandom",
	"TestProducersAgainstDecrypt", "TestEncryptionContextIsExact", "TestPlaintextSizes", "TestReEncryptContexts", "TestDamagedCiphertexts",
	"TestKeyStates", "TestKeyLifetime", "TestRotation", "TestUsersAndPolicies", "TestAuditRecord", "TestStopAndStart", "TestKill",
}

// TestNSS runs tests of this package once more, with rigs whose token is NSS's softokn. A process has one kind, so that this takes another.
func TestNSS(t *testing.T) {
	if os.Getenv(kindOfToken) != "" {
		t.Skip("this is the run with another kind of token")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^("+strings.Join(onNSS, "|")+")$", "-test.v", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), kindOfToken+"=nss", programOfParent+"="+program)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, name := range onNSS {
		if !strings.Contains(string(out), "--- PASS: "+name+" (") && err == nil {
			t.Errorf("%s was not run", name)
		}
	}
}
