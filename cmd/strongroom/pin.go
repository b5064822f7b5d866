package main

import (
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
	"syscall"
	"time"

	"strongroom/hsm/pkcs11"
)

// A pinNote is what is remembered of a PIN between two starts, so that one that the token has refused is not tried again by whatever starts the
// program again: tokens count wrong PINs, and lock. It lies beside the store, is written before a PIN is tried, and removed when the PIN was right.
//
// It holds no PIN that is right: what it holds is a slow hash of one that was refused, or that nobody has had an answer about.
type pinNote struct {
	Refused bool      // else it was being tried when the process ended
	Time    time.Time // of the attempt
	Salt    []byte
	Hash    []byte
}

// pinRounds is what OWASP's Password Storage Cheat Sheet asks of PBKDF2 with HMAC-SHA-256.
const pinRounds = 600_000

func hashPIN(pin, salt []byte) ([]byte, error) {
	return pbkdf2.Key(sha256.New, string(pin), salt, pinRounds, 16)
}

// notePath returns where the note on the PIN of a deployment lies.
func notePath(storeFile string) string { return storeFile + ".pin" }

// guardPIN returns c with a PIN that is not tried if file, where the note lies, says that it was refused before.
func guardPIN(c pkcs11.Config, file string) pkcs11.Config {
	ask := c.PIN
	c.PIN = func() ([]byte, error) {
		note, err := readNote(file)
		if err != nil {
			return nil, err
		}
		pin, err := ask()
		if err != nil {
			return nil, err
		}
		if err := note.allows(pin, file); err != nil {
			clear(pin)
			return nil, err
		}
		if err := (&pinNote{Time: time.Now()}).write(file); err != nil {
			clear(pin)
			return nil, fmt.Errorf("note that the PIN is tried: %w", err)
		}
		return pin, nil
	}
	c.PINUncertain = func() bool {
		note, err := readNote(file)
		return err == nil && note != nil && !note.Refused
	}
	c.PINAnswered = func(pin []byte, err error) {
		if !errors.Is(err, pkcs11.ErrPINWrong) {
			os.Remove(file)
			return
		}
		note := &pinNote{Refused: true, Time: time.Now(), Salt: make([]byte, 16)}
		rand.Read(note.Salt)
		if note.Hash, err = hashPIN(pin, note.Salt); err == nil {
			note.write(file) // if it cannot, the note that the PIN was tried stays
		}
	}
	return c
}

func readNote(file string) (*pinNote, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the note on a PIN: %w", err)
	}
	note := &pinNote{}
	if err := json.Unmarshal(b, note); err != nil {
		return nil, hint(fmt.Errorf("the note on a PIN, %s, cannot be read: %w", file, err), "remove it, when you are sure of the PIN")
	}
	return note, nil
}

// allows returns nil unless pin is the one that was refused. n may be nil.
func (n *pinNote) allows(pin []byte, file string) error {
	if n == nil || !n.Refused {
		return nil
	}
	hash, err := hashPIN(pin, n.Salt)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(hash, n.Hash) != 1 {
		return nil
	}
	return hint(&refusedBefore{n.Time}, "correct the PIN, in hsm.pin_file or "+pinVariable,
		"if the PIN of the token was changed to this one since: rm "+shellQuote(file))
}

// write puts the note into a file that belongs to whom the directory belongs to, since an administrator's command may leave it for the server.
func (n *pinNote) write(file string) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := writeFileAtomically(file, append(b, '\n')); err != nil {
		return err
	}
	if info, err := os.Stat(filepath.Dir(file)); err == nil {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
			os.Chown(file, int(owner.Uid), int(owner.Gid)) // only root can, and only root has to
		}
	}
	return nil
}

// A refusedBefore says that a PIN is not tried, because the token has refused it in the past. It is pkcs11.ErrPIN.
type refusedBefore struct{ when time.Time }

func (e *refusedBefore) Error() string {
	return fmt.Sprintf("the token refused this PIN on %s, so that it is not tried again", e.when.UTC().Format("2006-01-02 at 15:04:05 UTC"))
}

func (e *refusedBefore) Is(target error) bool { return target == pkcs11.ErrPIN }
