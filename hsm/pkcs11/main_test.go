package pkcs11_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
)

const label = "strongroom/test/1"

var aad = []byte("aad")

// A process has one token at most, so what two processes do to one takes a second process: this test binary, with the directory of the
// token in the environment.
func TestMain(m *testing.M) {
	dir := os.Getenv("STRONGROOM_TEST_TOKEN")
	if dir == "" {
		os.Exit(m.Run())
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

func child(ctx context.Context, dir string) error {
	c, err := softhsm.New(ctx, dir)
	if err != nil {
		return err
	}
	token, err := pkcs11.Open(ctx, c)
	if err != nil {
		return err
	}
	if os.Getenv("STRONGROOM_TEST_SIGNERS") != "" {
		return signers(ctx, token)
	}
	return errors.Join(churn(ctx, token, 100), token.Close())
}

// signers makes signers until the process is killed, and says beforehand what they will be called.
func signers(ctx context.Context, d hsm.Device) error {
	for {
		id := anID()
		fmt.Println(id)
		if _, err := d.GenerateSigner(ctx, id, label); err != nil {
			return err
		}
	}
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
	rand.Read(id[:])
	return id
}

// newToken makes a token in dir.
func newToken(t testing.TB, dir string) pkcs11.Config {
	t.Helper()
	c, err := softhsm.New(t.Context(), dir)
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
