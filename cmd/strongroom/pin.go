package main

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/hsm/pkcs11"
)

// A pinNote is what is remembered of PINs between two starts, so that one that the token has refused is not tried again by whatever starts the
// program again: tokens count wrong PINs, and lock. It lies beside the store, is written before a PIN is tried, and again when there is an answer.
//
// It holds nothing of a PIN that is right: of those that were refused, a slow hash; of the others, where they came from.
type pinNote struct {
	Accepted string       `json:",omitempty"` // the source of the last one that was right, see pinSource
	Refused  []refusedPIN `json:",omitempty"` // since then; the newest last
	Trying   *triedPIN    `json:",omitempty"` // what nobody has had an answer about
}

type refusedPIN struct {
	Time       time.Time
	Salt, Hash []byte
}

type triedPIN struct {
	Time   time.Time // of the last attempt
	Source string    // see pinSource
	Times  int       // in a row
}

// A PIN that was never right is tried that many times without an answer, and then not sooner than after a while: the token may have counted, and not
// say so. One that was right is tried on, since an HSM that is away does not answer either, unless the token says that it has counted a wrong one.
const (
	unansweredTries = 3
	unansweredRest  = 10 * time.Minute

	keptRefusals = 10 // to look through them takes a tenth of a second each
)

// pinRounds is what OWASP's Password Storage Cheat Sheet asks of PBKDF2 with HMAC-SHA-256.
const pinRounds = 600_000

func hashPIN(pin, salt []byte) ([]byte, error) {
	return pbkdf2.Key(sha256.New, string(pin), salt, pinRounds, 16)
}

// notePath returns where the note on the PIN of a deployment lies.
func notePath(storeFile string) string { return storeFile + ".pin" }

// pinSource says where a PIN comes from, in a way that changes when it is corrected there.
func pinSource(h HSMConfig) string {
	if h.PINFile == "" {
		return pinVariable
	}
	info, err := os.Stat(h.PINFile)
	if err != nil {
		return h.PINFile
	}
	return fmt.Sprintf("%s of %s", h.PINFile, info.ModTime().UTC().Format(time.RFC3339Nano))
}

// guardPIN returns c with a PIN that is not tried if h.pinNote, where the note lies, says that it was refused. Processes that try at the same time do
// so one after the other.
func guardPIN(c pkcs11.Config, h HSMConfig) pkcs11.Config {
	file := h.pinNote
	c.PINUncertain = func() bool {
		note, err := readNote(file)
		return err == nil && note.Trying != nil && note.Trying.Source == pinSource(h)
	}
	c.TryPIN = func(pin []byte) (func(error), error) {
		lock, err := lockNote(file)
		if err != nil {
			return nil, fmt.Errorf("the note on a PIN: %w", err)
		}
		note, err := readNote(file)
		if err == nil {
			err = note.allows(pin, h)
		}
		if err == nil {
			tried := &triedPIN{Time: time.Now().UTC(), Source: pinSource(h), Times: 1}
			if note.Trying != nil && note.Trying.Source == tried.Source {
				tried.Times += note.Trying.Times
			}
			note.Trying = tried
			if err = note.write(file); note.Accepted == tried.Source {
				err = nil // a disk that is full is no reason to be without the HSM, for a PIN that was right
			}
		}
		if err != nil {
			lock.Close()
			return nil, err
		}
		kept := bytes.Clone(pin) // until there is an answer
		return func(err error) {
			defer lock.Close()
			defer clear(kept)
			switch {
			case err == nil:
				(&pinNote{Accepted: note.Trying.Source}).write(file) // if it cannot, the PIN is only looked at more closely
			case errors.Is(err, pkcs11.ErrPINWrong):
				refused := refusedPIN{Time: time.Now().UTC(), Salt: make([]byte, 16)}
				rand.Read(refused.Salt)
				if refused.Hash, err = hashPIN(kept, refused.Salt); err == nil {
					note.Refused = append(note.Refused, refused)
					note.Refused = note.Refused[max(0, len(note.Refused)-keptRefusals):]
					note.Accepted, note.Trying = "", nil
					note.write(file) // if it cannot, the note that the PIN was tried stays
				}
			}
		}, nil
	}
	return c
}

// lockNote keeps other processes from trying a PIN of the same deployment, until the file is closed or the process ends.
func lockNote(file string) (*os.File, error) {
	name := file + ".lock"
	// Root may come here, into a directory of somebody who would have it open another file, or give that away.
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*os.File, error) {
		lock.Close()
		return nil, err
	}
	if info, err := lock.Stat(); err != nil || !info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Nlink != 1 {
		return fail(fmt.Errorf("%s is not a file of its own; remove it", name))
	}
	if err := giveToOwner(lock, filepath.Dir(file)); err != nil {
		return fail(err)
	}
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(until) {
			return fail(fmt.Errorf("another process is trying a PIN: %w", err))
		}
	}
}

// giveToOwner gives a file to whom a directory belongs to, where root has made it, who is not the server.
func giveToOwner(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

func readNote(file string) (*pinNote, error) {
	note := &pinNote{}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return note, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the note on a PIN: %w", err)
	}
	if err := json.Unmarshal(b, note); err != nil {
		return nil, hint(fmt.Errorf("the note on a PIN, %s, cannot be read: %w", file, err), "remove it, when you are sure of the PIN")
	}
	return note, nil
}

// allows returns nil if pin may be tried.
func (n *pinNote) allows(pin []byte, h HSMConfig) error {
	for _, refused := range slices.Backward(n.Refused) {
		hash, err := hashPIN(pin, refused.Salt)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(hash, refused.Hash) == 1 {
			return hint(&refusedBefore{refused.Time}, "correct the PIN, in hsm.pin_file or "+pinVariable,
				"if the PIN of the token was changed to this one since: rm "+shellQuote(h.pinNote))
		}
	}
	if t := n.Trying; t != nil && t.Times >= unansweredTries && t.Source == pinSource(h) && t.Source != n.Accepted && time.Since(t.Time) < unansweredRest {
		return hint(fmt.Errorf("this PIN was tried %d times without an answer, and may have been counted as wrong each time; it is tried again after %s",
			t.Times, t.Time.Add(unansweredRest).UTC().Format("15:04:05 UTC")), "if you are sure of it: rm "+shellQuote(h.pinNote))
	}
	return nil
}

// write puts the note into a file that belongs to whom the directory belongs to, since an administrator's command may leave it for the server.
func (n *pinNote) write(file string) error {
	b, err := json.Marshal(n)
	if err == nil {
		err = replaceFileFor(file, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("note that a PIN is tried: %w", err)
	}
	return nil
}

// replaceFileFor is writeFileAtomically for a file that is to belong to whom its directory belongs to.
func replaceFileFor(path string, b []byte) error {
	return writeFile(path, b, func(f *os.File) error { return giveToOwner(f, filepath.Dir(path)) })
}

// A refusedBefore says that a PIN is not tried, because the token has refused it in the past. It is pkcs11.ErrPIN, and ErrPINWrong.
type refusedBefore struct{ when time.Time }

func (e *refusedBefore) Error() string {
	return fmt.Sprintf("the token refused this PIN on %s, so that it is not tried again", e.when.UTC().Format("2006-01-02 at 15:04:05 UTC"))
}

func (e *refusedBefore) Is(target error) bool {
	return target == pkcs11.ErrPIN || target == pkcs11.ErrPINWrong
}
