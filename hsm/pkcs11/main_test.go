package pkcs11_test

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
	"strongroom/test/tokens"
)

const label = "strongroom/test/1"

var aad = []byte("aad")

// A process has one token at most, so what two processes do to one takes a second process: this test binary, with the directory of the
// token in the environment.
func TestMain(m *testing.M) {
	dir := os.Getenv("STRONGROOM_TEST_TOKEN")
	if dir == "" {
		code := m.Run()
		if faultDir != "" {
			os.RemoveAll(faultDir)
		}
		os.Exit(code)
	}
	if err := child(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// inAnotherProcess makes keys there, and destroys them, while f runs.
func inAnotherProcess(t *testing.T, dir string, f func()) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "STRONGROOM_TEST_TOKEN="+dir)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	f()
	if err := c.Wait(); err != nil {
		t.Errorf("the other process: %v", err)
	}
}

// kinds are the tokens that the tests make, by how they are called in the environment of the other process.
var kinds = map[string]func(ctx context.Context, dir string) (pkcs11.Config, error){
	"softhsm": softhsm.New,
	"nss":     tokens.NSS,
}

func child(ctx context.Context, dir string) error {
	c, err := kinds[os.Getenv("STRONGROOM_TEST_KIND")](ctx, dir)
	if err != nil {
		return err
	}
	token, err := pkcs11.Open(ctx, c)
	if err != nil {
		return err
	}
	switch os.Getenv("STRONGROOM_TEST_MAKE") {
	case "keys":
		return endlessly(ctx, token.Generate)
	case "signers":
		return endlessly(ctx, token.GenerateSigner)
	case "share":
		return share(ctx, token)
	}
	return errors.Join(churn(ctx, token, 100), token.Close())
}

// endlessly makes keys until the process is killed, and says beforehand what they will be called.
func endlessly(ctx context.Context, generate func(context.Context, hsm.ID, string) (hsm.Ref, error)) error {
	for {
		id := anID()
		fmt.Println(id)
		if _, err := generate(ctx, id, label); err != nil {
			return err
		}
	}
}

// share makes a key and a signer, says what they are, and destroys them when it is told to.
func share(ctx context.Context, d hsm.Device) error {
	key, signer := anID(), anID()
	ref, err := d.Generate(ctx, key, label)
	if err != nil {
		return err
	}
	sref, err := d.GenerateSigner(ctx, signer, label)
	if err != nil {
		return err
	}
	sealed, err := d.Seal(ctx, ref, nil, []byte("plaintext"), aad)
	if err != nil {
		return err
	}
	fmt.Printf("%x %x %x\n", ref, sref, sealed)
	if _, err := fmt.Scanln(); err != nil && err.Error() != "unexpected newline" {
		return err
	}
	return errors.Join(d.Destroy(ctx, key), d.Destroy(ctx, signer))
}

// killed kills a process that makes keys, or signers, in the token in dir, and returns the id of the last, which may be made or not.
func killed(t *testing.T, dir, what string) hsm.ID {
	t.Helper()
	// The kill has to hit the milliseconds in which one is made, wherever they are.
	kill := exec.Command(os.Args[0])
	kill.Env = append(os.Environ(), "STRONGROOM_TEST_TOKEN="+dir, "STRONGROOM_TEST_MAKE="+what)
	out, err := kill.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := kill.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	last, n := "", 0
	for n < 2 && lines.Scan() { // the ids of those that are about to be made
		last, n = lines.Text(), n+1
	}
	time.Sleep(rand.N(20 * time.Millisecond))
	kill.Process.Kill()
	for lines.Scan() {
		last = lines.Text()
	}
	kill.Wait()
	b, err := hex.DecodeString(last)
	if err != nil || len(b) != len(hsm.ID{}) {
		t.Fatalf("the other process said %q", last)
	}
	return hsm.ID(b)
}

// churn makes keys, uses and destroys them.
func churn(ctx context.Context, d hsm.Device, n int) error {
	for i := range n {
		id := anID()
		ref, err := d.Generate(ctx, id, label)
		if err != nil {
			return fmt.Errorf("%d: Generate: %w", i, err)
		}
		sealed, err := d.Seal(ctx, ref, nil, []byte("plaintext"), aad)
		if err != nil {
			return fmt.Errorf("%d: Seal: %w", i, err)
		}
		if _, err := d.Open(ctx, ref, nil, sealed, aad); err != nil {
			return fmt.Errorf("%d: Open: %w", i, err)
		}
		if _, err := d.Objects(ctx); err != nil {
			return fmt.Errorf("%d: Objects: %w", i, err)
		}
		if err := d.Destroy(ctx, id); err != nil {
			return fmt.Errorf("%d: Destroy: %w", i, err)
		}
		if _, err := d.Seal(ctx, ref, nil, []byte("plaintext"), aad); !errors.Is(err, hsm.ErrNoKey) {
			return fmt.Errorf("%d: Seal under a destroyed key: %w", i, err)
		}
		if i%4 != 0 {
			continue
		}
		signer, err := d.GenerateSigner(ctx, id, label)
		if err != nil {
			return fmt.Errorf("%d: GenerateSigner: %w", i, err)
		}
		if _, err := d.Sign(ctx, signer, [32]byte{1}); err != nil {
			return fmt.Errorf("%d: Sign: %w", i, err)
		}
		if err := d.Destroy(ctx, id); err != nil {
			return fmt.Errorf("%d: Destroy of a signer: %w", i, err)
		}
		if _, err := d.Sign(ctx, signer, [32]byte{1}); !errors.Is(err, hsm.ErrNoKey) {
			return fmt.Errorf("%d: Sign with a destroyed signer: %w", i, err)
		}
	}
	return nil
}

func anID() (id hsm.ID) {
	crand.Read(id[:])
	return id
}

// newToken makes a token of SoftHSM in dir.
func newToken(t testing.TB, dir string) pkcs11.Config {
	t.Helper()
	return newTokenOf(t, "softhsm", dir)
}

// newTokenOf makes a token of the kind in dir. Other processes that the test starts use the same kind.
func newTokenOf(t testing.TB, kind, dir string) pkcs11.Config {
	t.Helper()
	t.Setenv("STRONGROOM_TEST_KIND", kind)
	c, err := kinds[kind](t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	token, err := pkcs11.Init(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, c pkcs11.Config) *pkcs11.Token {
	t.Helper()
	token, err := pkcs11.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	return token
}

func TestDevice(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprint("copies ", copies), func(t *testing.T) {
			hsmtest.Test(t, func(t *testing.T) hsm.Device {
				c := newToken(t, t.TempDir())
				c.SessionCopies = copies
				return open(t, c)
			})
		})
	}
}

func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	token := open(t, newToken(t, dir))
	inAnotherProcess(t, dir, func() {
		if err := churn(t.Context(), token, 100); err != nil {
			t.Error(err)
		}
	})
}
