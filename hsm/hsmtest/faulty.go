package hsmtest

import (
	"context"

	"strongroom/hsm"
)

// Faulty returns a device that asks fail before each call of d, with the name of the method as op ("Generate",
// "GenerateSigner", "PublicKey", "Sign", "Destroy", "Seal", "Open", "Random", "Check", "Objects"). If fail returns an error, the call returns it
// and d is not called; otherwise the call is d's. So what fails has had no effect. fail is called by as many goroutines as call the device; it
// may also wait.
func Faulty(d hsm.Device, fail func(op string) error) hsm.Device { return &faulty{d, fail} }

type faulty struct {
	device hsm.Device
	fail   func(op string) error
}

func (f *faulty) Generate(ctx context.Context, id hsm.ID, label string) (hsm.Ref, error) {
	if err := f.fail("Generate"); err != nil {
		return nil, err
	}
	return f.device.Generate(ctx, id, label)
}

func (f *faulty) GenerateSigner(ctx context.Context, id hsm.ID, label string) (hsm.Ref, error) {
	if err := f.fail("GenerateSigner"); err != nil {
		return nil, err
	}
	return f.device.GenerateSigner(ctx, id, label)
}

func (f *faulty) PublicKey(ctx context.Context, signer hsm.Ref) ([]byte, error) {
	if err := f.fail("PublicKey"); err != nil {
		return nil, err
	}
	return f.device.PublicKey(ctx, signer)
}

func (f *faulty) Sign(ctx context.Context, signer hsm.Ref, digest [32]byte) ([]byte, error) {
	if err := f.fail("Sign"); err != nil {
		return nil, err
	}
	return f.device.Sign(ctx, signer, digest)
}

func (f *faulty) Destroy(ctx context.Context, id hsm.ID) error {
	if err := f.fail("Destroy"); err != nil {
		return err
	}
	return f.device.Destroy(ctx, id)
}

func (f *faulty) Seal(ctx context.Context, key hsm.Ref, dst, plaintext, aad []byte) ([]byte, error) {
	if err := f.fail("Seal"); err != nil {
		return nil, err
	}
	return f.device.Seal(ctx, key, dst, plaintext, aad)
}

func (f *faulty) Open(ctx context.Context, key hsm.Ref, dst, sealed, aad []byte) ([]byte, error) {
	if err := f.fail("Open"); err != nil {
		return nil, err
	}
	return f.device.Open(ctx, key, dst, sealed, aad)
}

func (f *faulty) Random(ctx context.Context, p []byte) error {
	if err := f.fail("Random"); err != nil {
		return err
	}
	return f.device.Random(ctx, p)
}

func (f *faulty) Check(ctx context.Context) error {
	if err := f.fail("Check"); err != nil {
		return err
	}
	return f.device.Check(ctx)
}

func (f *faulty) Objects(ctx context.Context) ([]hsm.Object, error) {
	if err := f.fail("Objects"); err != nil {
		return nil, err
	}
	return f.device.Objects(ctx)
}
