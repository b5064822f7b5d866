package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"strongroom/hsm/pkcs11"
)

// listObjectsOf names the environment variable that turns the test binary into a program which lists what a token holds: a process opens one
// token at most, and the tests may want another.
const listObjectsOf = "STRONGROOM_TEST_LIST_OBJECTS"

// listObjects prints the label of every object of ours in the token of a rig's directory.
func listObjects(dir string) int {
	ctx := context.Background()
	config, err := kind.token(ctx, dir)
	if err != nil {
		return fail(err)
	}
	token, err := pkcs11.Open(ctx, config)
	if err != nil {
		return fail(err)
	}
	objects, err := token.Objects(ctx)
	if err != nil {
		return fail(err)
	}
	for _, o := range objects {
		fmt.Println(o.Label)
	}
	if err := token.Close(); err != nil {
		return fail(err)
	}
	return 0
}

// objects returns how many objects of ours the token of a rig holds, by label. The canary, by which the driver knows that a token works, is not
// among them. No server may run.
func objects(t testing.TB, dir string) map[string]int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), listObjectsOf+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list the objects of the token: %v\n%s", err, stderr.String())
	}
	labels := make(map[string]int)
	for label := range strings.Lines(string(out)) {
		labels[strings.TrimSpace(label)]++
	}
	return labels
}
