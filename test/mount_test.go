package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Tests of disks that fail run on file systems of their own, which they mount where nobody else sees them: each runs again in a child process with mounts of
// its own. Root may do that; anybody else needs a system that gives him a user namespace, or, for what is not a tmpfs, sudo. Where neither is possible the
// test fails and says so: to skip it would be to pass without having looked.

const mountsVariable = "STRONGROOM_TEST_MOUNTS"

// withMounts runs the test f in a process that may mount file systems, of which block devices only if the process is root's.
func withMounts(t *testing.T, devices bool, f func(t *testing.T)) {
	if os.Getenv(mountsVariable) == t.Name() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		f(t)
		return
	}
	args := []string{os.Args[0], "-test.run=^" + t.Name() + "$", "-test.v", "-test.count=1"}
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	switch uid := os.Getuid(); {
	case uid == 0:
	case devices:
		args = append([]string{"sudo", "-n", "--preserve-env=PATH,GORACE," + mountsVariable + "," + programOfParent, "unshare", "--mount"}, args...)
		attr.Cloneflags = 0
	default:
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), mountsVariable+"="+t.Name(), programOfParent+"="+program)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil && strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Logf("%s", out)
	case ended && exit.Success() || strings.Contains(string(out), "--- FAIL"):
		t.Errorf("in a process with mounts of its own: %v\n%s", err, out)
	default:
		t.Fatalf("this test mounts file systems, which this user may not do here (%v\n%s); run it as root", err, out)
	}
}

// mount mounts a file system until the end of the test, and makes its directory.
func mount(t *testing.T, source, dir, kind, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(source, dir, kind, 0, options); err != nil {
		t.Fatalf("mount a %s at %s: %v", kind, dir, err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill fills the file system of a directory to the last byte.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, filler), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 16
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// empty makes room again.
func empty(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, filler)); err != nil {
		t.Fatal(err)
	}
}

const filler = "filler"
