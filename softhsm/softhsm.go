// Package softhsm keeps a private SoftHSM2 token in a directory, for tests and for trying strongroom out. It needs the library
// libsofthsm2.so, and neither root rights nor the system's own SoftHSM configuration.
//
// Such a token protects nothing from whoever can read its directory: the PIN lies next to the keys.
package softhsm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"strongroom/hsm/pkcs11"

	p11 "github.com/miekg/pkcs11"
)

// Label is the label of the token that New makes.
const Label = "strongroom"

// The directory holds
//
//	pin              the PIN of the token, 32 hexadecimal digits and a newline
//	softhsm2.conf    written anew at each start, because it has to name the directory absolutely
//	tokens/          SoftHSM's own; complete if it is there
//	tokens.new/      left over from a first start that was interrupted
//
// and is for its owner alone, as is everything in it.
const (
	pinFile   = "pin"
	confFile  = "softhsm2.conf"
	tokens    = "tokens"
	tokensNew = "tokens.new"
)

// New makes a token in dir, or finds the one that it made there, and returns how to open it. It sets SOFTHSM2_CONF in the
// environment of this process, which SoftHSM reads when it is initialised: so what matters is which New came last before
// [pkcs11.Open] or [pkcs11.Init]. The first start in a directory initialises SoftHSM itself, for a moment, and fails if this process has
// a token open.
//
// A first start may be interrupted at any point; the next one begins again. Several processes may start at the same time.
func New(ctx context.Context, dir string) (pkcs11.Config, error) {
	c, err := open(ctx, dir)
	if err != nil {
		return pkcs11.Config{}, fmt.Errorf("preparing a SoftHSM token in %s: %w", dir, err)
	}
	return c, nil
}

func open(ctx context.Context, dir string) (pkcs11.Config, error) {
	var none pkcs11.Config
	module, err := Module()
	if err != nil {
		return none, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return none, err
	}
	// SoftHSM's configuration has no way to quote, and lines of 1 KiB at most: "#" begins a comment, "=" ends the name of an option, and
	// spaces at the end are cut off.
	if strings.ContainsAny(dir, "#=\r\n") || strings.TrimSpace(dir) != dir || len(dir) > 900 {
		return none, errors.New("SoftHSM cannot use a directory whose name has a #, a = or a line break in it, ends in a space, or is longer than 900 bytes")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return none, err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return none, err
	}
	defer unlock()

	_, err = os.Stat(filepath.Join(dir, tokens))
	if errors.Is(err, fs.ErrNotExist) {
		err = first(ctx, dir, module)
	}
	if err != nil {
		return none, err
	}
	if err := configure(dir, tokens); err != nil {
		return none, err
	}
	return pkcs11.Config{
		Module:  module,
		Label:   Label,
		PIN:     pkcs11.PINFile(filepath.Join(dir, pinFile)),
		SyncDir: filepath.Join(dir, tokens),

		// Each use of a key of the token would read and lock two files.
		SessionCopies: true,
	}, nil
}

// first makes the token: under another name, so that it is either there and complete, or not there.
func first(ctx context.Context, dir, module string) error {
	pin, err := readPIN(filepath.Join(dir, pinFile))
	if err != nil {
		return err
	}
	building := filepath.Join(dir, tokensNew)
	if err := os.RemoveAll(building); err != nil {
		return err
	}
	if err := os.Mkdir(building, 0o700); err != nil {
		return err
	}
	if err := configure(dir, tokensNew); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := initialise(module, pin); err != nil {
		return err
	}
	// Everything is on the disk before the name says that it is complete. SoftHSM itself calls no fsync.
	err = filepath.WalkDir(building, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return fsync(name)
	})
	if err != nil {
		return err
	}
	if err := os.Rename(building, filepath.Join(dir, tokens)); err != nil {
		return err
	}
	return fsync(dir)
}

// initialise makes the one token of the tokens directory that SOFTHSM2_CONF leads to. It is done in this process, so that the PIN is
// on no command line.
func initialise(module, pin string) (err error) {
	raw := p11.New(module)
	if raw == nil {
		return fmt.Errorf("cannot load %s", module)
	}
	defer raw.Destroy()
	if err := raw.Initialize(); err != nil {
		return fmt.Errorf("C_Initialize: %w", err)
	}
	defer func() {
		if ferr := raw.Finalize(); err == nil && ferr != nil {
			err = fmt.Errorf("C_Finalize: %w", ferr)
		}
	}()
	slots, err := raw.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("C_GetSlotList: %w", err)
	}
	if len(slots) != 1 { // SoftHSM shows one slot to initialise the next token in
		return fmt.Errorf("SoftHSM shows %d slots in a new directory, where 1 was expected", len(slots))
	}
	// Whoever can use the security officer's PIN can read the files. It is never needed again.
	officer := newPIN()
	if err := raw.InitToken(slots[0], officer, Label); err != nil {
		return fmt.Errorf("C_InitToken: %w", err)
	}
	s, err := raw.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("C_OpenSession: %w", err)
	}
	defer raw.CloseSession(s)
	if err := raw.Login(s, p11.CKU_SO, officer); err != nil {
		return fmt.Errorf("C_Login: %w", err)
	}
	if err := raw.InitPIN(s, pin); err != nil {
		return fmt.Errorf("C_InitPIN: %w", err)
	}
	return nil
}

// configure writes the configuration and leads SoftHSM to it.
func configure(dir, tokens string) error {
	name := filepath.Join(dir, confFile)
	conf := fmt.Sprintf(`# Written by strongroom at each start.
directories.tokendir = %s
objectstore.backend = file
log.level = ERROR
slots.removable = false
slots.mechanisms = ALL
`, filepath.Join(dir, tokens))
	if old, err := os.ReadFile(name); err != nil || string(old) != conf {
		if err := replace(name, []byte(conf)); err != nil {
			return err
		}
	}
	// With cgo, Setenv sets the environment of C too.
	return os.Setenv("SOFTHSM2_CONF", name)
}

// readPIN reads the PIN, or makes one.
func readPIN(name string) (string, error) {
	pin, err := pkcs11.PINFile(name)()
	if errors.Is(err, fs.ErrNotExist) {
		pin = []byte(newPIN())
		err = replace(name, append(pin, '\n'))
	}
	return string(pin), err
}

func newPIN() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// replace writes a file so that it is there with all its content, or as it was.
func replace(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return fsync(filepath.Dir(name))
}

func fsync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lock keeps other processes out of the directory until it is unlocked, or this process ends.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another process has locked it: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
