package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/kms/audit"
	"strongroom/softhsm"
	"strongroom/store"
)

// A ward is a file or a directory of the deployment, and what others may do with it.
type ward struct {
	path   string
	forbid os.FileMode // rights that nobody but the owner may have
	why    string      // it matters
	grave  bool        // an error, not a warning
	any    bool        // it need not belong to the user that the server runs as
	ours   bool        // nobody else has a use for it, so that its mode can be mended
}

const (
	othersAnything = os.FileMode(0o077)
	othersWrite    = os.FileMode(0o022)
)

// wards lists what there is.
func (d *doctor) wards() []ward {
	var all []ward
	add := func(w ward) { all = append(all, w) }
	dir := filepath.Dir(d.storePath)
	const policies = "who reads the store learns keys' names, policies and grants; who writes it decides who may do what"
	add(ward{path: dir, forbid: othersWrite, grave: true, why: "others could put another store in the place of this one"})
	for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".pin"} {
		add(ward{path: d.storePath + suffix, forbid: othersAnything, ours: true, why: policies})
	}
	add(ward{path: d.auditDir, forbid: othersWrite, grave: true, ours: true, why: "others could take files of the audit log away"})
	add(ward{path: filepath.Join(d.auditDir, "lock"), forbid: othersWrite, ours: true, why: "others could keep the server from its log"})
	files, _ := audit.Files(d.auditDir) // what is wrong with it, the audit log's own part says
	for _, f := range files {
		add(ward{path: f, forbid: othersWrite | 0o004, ours: true, why: "the audit log says who did what; others could read it, or write what the server then reports"})
	}
	const keys = "others could use or destroy the keys of the token"
	if d.rig != nil {
		add(ward{path: d.tokenDir, forbid: othersAnything, grave: true, ours: true, why: keys})
	} else if d.tokenDir != "" {
		// A distribution's own directory of tokens may be for a group that the server's user is in.
		add(ward{path: d.tokenDir, forbid: 0o007, grave: true, any: true, why: keys})
	}
	const secret = "others can read the secret"
	if d.rig != nil {
		soft := d.rig.tokenDir()
		add(ward{path: d.rig.credentialsFile(), forbid: othersAnything, grave: true, ours: true, why: secret})
		add(ward{path: d.rig.envFile(), forbid: othersAnything, grave: true, ours: true, why: secret})
		add(ward{path: filepath.Join(soft, "pin"), forbid: othersAnything, grave: true, ours: true, why: secret})
		add(ward{path: filepath.Join(soft, "softhsm2.conf"), forbid: othersWrite, grave: true, ours: true, why: "others could lead the server to another token"})
		return all
	}
	add(ward{path: d.configPath, forbid: othersWrite, grave: true, any: true, why: "others could lead the server to another token or another store"})
	if f := d.config.HSM.PINFile; f != "" {
		add(ward{path: f, forbid: othersAnything, grave: true, any: true, ours: true, why: secret + ", and serve refuses the file"})
	}
	if f := d.config.TLS.Key; f != "" {
		add(ward{path: f, forbid: 0o027, grave: true, any: true, why: "others could pass for the server"})
	}
	add(ward{path: d.config.HSM.Module, forbid: othersWrite, grave: true, any: true, why: "others could put a program of theirs into the server, which gives it the PIN"})
	return all
}

// examineFiles looks at modes, owners and room.
func (d *doctor) examineFiles(ctx context.Context, p *part) func() {
	served, _, _ := d.whoServes()
	looked := 0
	var owner *syscall.Stat_t
	if info, err := os.Stat(d.storePath); err == nil {
		owner = info.Sys().(*syscall.Stat_t)
	}
	for _, w := range d.wards() {
		info, err := os.Stat(w.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // what must be there, other parts miss
		}
		if err != nil {
			p.fail("file-unreadable", w.path, fmt.Sprintf("cannot be looked at: %v", withoutPath(err)), "", "run this as root, or as the user that the server runs as")
			continue
		}
		looked++
		d.examineMode(p, w, info)
		stat := info.Sys().(*syscall.Stat_t)
		if owner != nil && !w.any && stat.Uid != owner.Uid && owner.Uid != 0 {
			p.fail("file-owner", w.path, fmt.Sprintf("belongs to %s, and the store to %s", userName(stat.Uid), userName(owner.Uid)),
				"the server, which runs as the owner of the store, may be unable to write there",
				fmt.Sprintf("chown %s %s", userName(owner.Uid), shellQuote(w.path)))
		}
	}
	if len(p.Findings) == 0 {
		p.ok("modes and owners of %s", count(looked, "file"))
	}
	if owner != nil && served && d.serverUID() >= 0 && d.serverUID() != int(owner.Uid) && d.serverUID() != 0 {
		p.warn("server-user", d.storePath, fmt.Sprintf("the server runs as %s, and the store belongs to %s", userName(uint32(d.serverUID())), userName(owner.Uid)),
			"it works as long as the modes allow it", "run both as one user")
	}
	d.examineRoom(p)
	if d.config != nil {
		d.examineSyncDir(p)
	}
	d.examineLeftovers(p, served)
	return nil
}

func (d *doctor) examineMode(p *part, w ward, info fs.FileInfo) {
	mode := info.Mode().Perm()
	open := mode & w.forbid
	if info.IsDir() && info.Mode()&os.ModeSticky != 0 {
		open &^= 0o022 // as in /tmp, nobody can replace what is another's
	}
	if open == 0 {
		return
	}
	severity := severeWarning
	if w.grave || open&0o022 != 0 {
		severity = severeError
	}
	right := mode &^ w.forbid
	f := p.find(severity, "file-mode", w.path, fmt.Sprintf("mode %04o", mode), w.why, fmt.Sprintf("chmod %o %s", right, shellQuote(w.path)))
	if stat := info.Sys().(*syscall.Stat_t); w.ours && (os.Geteuid() == 0 || int(stat.Uid) == os.Geteuid()) {
		f.fix = func() error { return closeMode(w.path, w.forbid, stat.Uid) }
	}
}

// closeMode takes rights away from a file or a directory that belongs to a user, and never gives any. Root may do it in a directory of somebody who
// would lead it to another file, so that what is looked at is what is changed.
func closeMode(path string, forbid os.FileMode, uid uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if kind := now.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR || kind == unix.S_IFREG && now.Nlink != 1 || now.Uid != uid {
		return fmt.Errorf("%s is not what it was, or not a file of its own", path)
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), now.Mode&0o7777&^uint32(forbid)); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

func userName(uid uint32) string {
	id := strconv.Itoa(int(uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// How little room is a finding. A request that cannot be recorded is not answered.
const (
	roomError     = 32 << 20 // bytes
	roomWarning   = 512 << 20
	inodesWarning = 1000
)

// examineRoom looks at the file systems.
func (d *doctor) examineRoom(p *part) {
	n := len(p.Findings)
	seen := make(map[string]bool)
	for _, at := range []struct{ dir, what string }{
		{filepath.Dir(d.storePath), "the store"}, {d.auditDir, "the audit log"}, {d.tokenDir, "the token"},
	} {
		dir := at.dir
		if dir == "" {
			continue
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			p.fail("file-system", dir, fmt.Sprintf("the file system does not answer: %v", err), at.what+" is there", "look in the system's log")
			continue
		}
		key := fmt.Sprint(s.Fsid)
		if seen[key] {
			continue
		}
		seen[key] = true
		room := s.Bavail * uint64(s.Bsize)
		const why = "what cannot be recorded is not answered, and no key is made"
		switch {
		case s.Flags&unix.ST_RDONLY != 0:
			p.fail("read-only", dir, "the file system is read-only", why, "see in the system's log why, and mount it for writing")
		case room < roomError:
			p.fail("no-room", dir, fmt.Sprintf("%d MiB are left on the file system", room>>20), why, "free some, or move closed files of the audit log away")
		case s.Files > 0 && s.Ffree == 0:
			p.fail("no-inodes", dir, "no inode is left on the file system", why, "remove files")
		case room < roomWarning:
			p.warn("little-room", dir, fmt.Sprintf("%d MiB are left on the file system", room>>20), "when nothing is left: "+why, "free some, or move closed files of the audit log away")
		case s.Files > 0 && s.Ffree < inodesWarning:
			p.warn("few-inodes", dir, fmt.Sprintf("%d inodes are left on the file system", s.Ffree), "when none is left: "+why, "remove files")
		}
	}
	if len(p.Findings) == n {
		p.ok("file systems of store, audit log and token can be written, and have room")
	}
}

// examineSyncDir sees that sync_dir is what it should be.
func (d *doctor) examineSyncDir(p *part) {
	if !d.moduleIsSoftHSM() {
		return
	}
	tokens, err := softhsm.TokenDir()
	key := d.configPath + ": hsm.sync_dir"
	const why = "SoftHSM does not flush its files, so that a key made a moment ago can vanish with the power, and all that it encrypted"
	switch dir := d.tokenDir; {
	case err != nil:
		p.skip("SoftHSM's own configuration, which says where its tokens are, cannot be read here: %v", err)
	case dir == "":
		p.warn("sync-dir", key, "is not set, and the token is SoftHSM's", why, fmt.Sprintf("sync_dir = %q", tokens))
	default:
		one, err1 := os.Stat(dir)
		other, err2 := os.Stat(tokens)
		if err1 == nil && err2 == nil && !os.SameFile(one, other) {
			p.fail("sync-dir", key, fmt.Sprintf("%s is not where SoftHSM keeps its tokens, which is %s", dir, tokens), why, fmt.Sprintf("sync_dir = %q", tokens))
		} else if err1 == nil && err2 == nil {
			p.ok("hsm.sync_dir is where SoftHSM keeps its tokens")
		}
	}
}

// old is how long ago a temporary file was left behind, rather than just being written.
const old = 10 * time.Minute

// examineLeftovers looks for what was left behind by processes that were killed.
func (d *doctor) examineLeftovers(p *part, served bool) {
	patterns := []string{d.storePath + ".new", d.storePath + ".new-wal", d.storePath + ".new-shm", d.storePath + ".new-journal"}
	if d.rig != nil {
		patterns = append(patterns, d.rig.envFile()+".tmp*", d.rig.credentialsFile()+".tmp*",
			filepath.Join(d.rig.tokenDir(), ".*.*"), filepath.Join(d.rig.dir, "attestation", "*.tmp*"))
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			info, err := os.Lstat(path)
			if err != nil || !info.Mode().IsRegular() || served || time.Since(info.ModTime()) < old {
				continue
			}
			f := p.note("leftover", path, "a temporary file that a killed process left behind", "", "rm "+shellQuote(path))
			f.fix = func() error { return os.Remove(path) }
		}
	}
	d.examineReplaced(p, served)
	path, isSocket := "", false
	if d.config != nil {
		path, isSocket = strings.CutPrefix(d.config.Listen, "unix:")
	}
	if !isSocket || served {
		return
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		f := p.note("leftover", path, "a socket that nobody listens on", "the next start removes it", "rm "+shellQuote(path))
		f.fix = func() error { return os.Remove(path) }
	}
}

// examineReplaced tells of what restore leaves beside the store. All of it may be a store that somebody wants back, so that nothing of it is removed here.
func (d *doctor) examineReplaced(p *part, served bool) {
	for _, left := range []struct{ suffix, problem, remedy string }{
		{".restore", "a copy that a restore which was interrupted was about to put in place", "the next restore removes it"},
		{".installing", "the old store, or the new one, of a restore that was interrupted in the middle", "the next restore keeps it as .replaced- with its time; until then keep it, too"},
		{".replaced-*", "a store that was replaced by restore", "keep it as long as something of it may be wanted, and guarded like the store; then remove it"},
	} {
		found, _ := filepath.Glob(globQuoted(d.storePath) + left.suffix)
		for _, path := range found {
			info, err := os.Lstat(path)
			side := slices.ContainsFunc([]string{"-wal", "-shm", "-journal"}, func(s string) bool { return strings.HasSuffix(path, s) })
			if err != nil || !info.Mode().IsRegular() || side || served && left.suffix == ".restore" { // what has claimed the store may be a restore
				continue
			}
			p.note("replaced-store", path, fmt.Sprintf("is %s, last changed on %s", left.problem, when(info.ModTime())), "it holds who could do what then", left.remedy)
		}
	}
}

// globQuoted returns the pattern that path alone matches.
func globQuoted(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// whoServes returns whether a process has claimed the store, and which.
func (d *doctor) whoServes() (served bool, pid int, err error) {
	pid, served, err = store.Server(d.store)
	return served, pid, err
}

// serverUID returns the user that the server runs as, -1 if that is not known.
func (d *doctor) serverUID() int {
	_, pid, _ := d.whoServes()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(rest); len(f) > 1 {
				if uid, err := strconv.Atoi(f[1]); err == nil { // the effective one
					return uid
				}
			}
		}
	}
	return -1
}
