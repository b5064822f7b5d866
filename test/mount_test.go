package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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

// A disk is an ext4 file system in a file, which can be made to fail as the kernel does it.
type disk struct {
	t                *testing.T
	dir, image, loop string
}

func newDisk(t *testing.T, dir, image string) *disk {
	t.Helper()
	d := &disk{t: t, dir: dir, image: image}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", "-m", "0", image)
	d.mount()
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) run(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// mount mounts the disk, also after it failed.
func (d *disk) mount() {
	d.t.Helper()
	loop := d.run("losetup", "--find", "--show", d.image)
	d.loop = loop
	d.t.Cleanup(func() { exec.Command("losetup", "--detach", loop).Run() }) // done, if it was unmounted
	mount(d.t, loop, d.dir, "ext4", "errors=remount-ro")
}

// unmount takes it away, when nobody has a file of it open.
func (d *disk) unmount() {
	d.t.Helper()
	if err := syscall.Unmount(d.dir, 0); err != nil {
		d.t.Fatalf("unmount %s: %v", d.dir, err)
	}
	d.run("losetup", "--detach", d.loop)
}

// turnReadOnly has the kernel do what it does when it finds the file system damaged.
func (d *disk) turnReadOnly() {
	d.t.Helper()
	if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(d.loop)+"/trigger_fs_error", []byte("test"), 0); err != nil {
		d.t.Fatal(err)
	}
}

// pullOut has every write, and every read of what is not in memory, fail with EIO (linux/fs/ext4/ext4.h, EXT4_IOC_SHUTDOWN).
func (d *disk) pullOut() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	const shutdown, withoutFlush = 0x8004587d, 2
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, withoutFlush); err != nil {
		d.t.Fatalf("shut the file system of %s down: %v", d.dir, err)
	}
}
