package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// aboutKeys are what a report says of the machine and of what else was measured, in their order. The first ones are those of `go test -bench`.
var aboutKeys = []string{"goos", "goarch", "cpu", "processors", "kernel", "file system", "go", "SoftHSM", "OpenSSL", "load"}

const sameKeys = 3 // of aboutKeys: two runs that differ in them cannot be compared

// about describes the machine without its name. What cannot be told is left empty.
func about(ctx context.Context) map[string]string {
	first := func(file, pattern string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			return ""
		}
		if m := regexp.MustCompile(pattern).FindSubmatch(b); m != nil {
			return strings.TrimSpace(string(m[1]))
		}
		return ""
	}
	says := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return ""
		}
		line, _, _ := bytes.Cut(out, []byte("\n"))
		return strings.TrimSpace(string(line))
	}
	version, _, _ := strings.Cut(says("openssl", "version"), " (")
	return map[string]string{
		"goos": runtime.GOOS, "goarch": runtime.GOARCH, "go": runtime.Version(),
		"cpu":         first("/proc/cpuinfo", `model name\s*: (.*)`),
		"processors":  strconv.Itoa(runtime.NumCPU()) + ", shared by servers and clients",
		"kernel":      first("/proc/sys/kernel/osrelease", `(\d+\.\d+\.\d+)`),
		"file system": fileSystem(os.TempDir()),
		"SoftHSM":     says("softhsm2-util", "--version"),
		"OpenSSL":     strings.TrimPrefix(version, "OpenSSL "),
		"load":        first("/proc/loadavg", `(\S+)`) + " before",
	}
}

// fileSystem returns the type of that in which dir is (statfs(2)).
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return ""
	}
	kind := uint32(s.Type)
	if name := map[uint32]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x2fc12fc1: "zfs", 0x794c7630: "overlay"}[kind]; name != "" {
		return name
	}
	return "0x" + strconv.FormatUint(uint64(kind), 16)
}
