package hsmtest_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
)

// recorder notes which of its methods were called.
type recorder struct{ called []string }

func (r *recorder) note(op string) { r.called = append(r.called, op) }

func (r *recorder) Generate(context.Context, hsm.ID, string) (hsm.Ref, error) {
	r.note("Generate")
	return hsm.Ref{1}, nil
}
func (r *recorder) GenerateSigner(context.Context, hsm.ID, string) (hsm.Ref, error) {
	r.note("GenerateSigner")
	return hsm.Ref{2}, nil
}
func (r *recorder) PublicKey(context.Context, hsm.Ref) ([]byte, error) {
	r.note("PublicKey")
	return nil, nil
}
func (r *recorder) Sign(context.Context, hsm.Ref, [32]byte) ([]byte, error) {
	r.note("Sign")
	return nil, nil
}
func (r *recorder) Destroy(context.Context, hsm.ID) error { r.note("Destroy"); return nil }
func (r *recorder) Seal(_ context.Context, _ hsm.Ref, dst, _, _ []byte) ([]byte, error) {
	r.note("Seal")
	return dst, nil
}
func (r *recorder) Open(_ context.Context, _ hsm.Ref, dst, _, _ []byte) ([]byte, error) {
	r.note("Open")
	return dst, nil
}
func (r *recorder) Random(context.Context, []byte) error { r.note("Random"); return nil }
func (r *recorder) Check(context.Context) error          { r.note("Check"); return nil }
func (r *recorder) Objects(context.Context) ([]hsm.Object, error) {
	r.note("Objects")
	return nil, nil
}

// Every method of a Device can be made to fail, under its own name, and does not reach the device then.
func TestFaulty(t *testing.T) {
	device := reflect.TypeFor[hsm.Device]()
	for m := range device.Methods() {
		for _, fails := range []bool{false, true} {
			r := &recorder{}
			var asked []string
			fault := fmt.Errorf("%w: on request", hsm.ErrUnavailable)
			d := hsmtest.Faulty(r, func(op string) error {
				asked = append(asked, op)
				if fails {
					return fault
				}
				return nil
			})
			method := reflect.ValueOf(d).MethodByName(m.Name)
			args := []reflect.Value{reflect.ValueOf(context.Background())}
			for i := 1; i < method.Type().NumIn(); i++ {
				args = append(args, reflect.Zero(method.Type().In(i)))
			}
			out := method.Call(args)
			err, _ := out[len(out)-1].Interface().(error)

			if strings.Join(asked, " ") != m.Name {
				t.Errorf("%s asked about %q", m.Name, asked)
			}
			switch {
			case fails && (err != fault || len(r.called) != 0):
				t.Errorf("%s: got the error %v, and called %q", m.Name, err, r.called)
			case !fails && (err != nil || strings.Join(r.called, " ") != m.Name):
				t.Errorf("%s: got the error %v, and called %q", m.Name, err, r.called)
			}
		}
	}
}
