package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// A Config names a token, and how to use it.
type Config struct {
	// Module is the path of the vendor's PKCS #11 library, such as /usr/lib/softhsm/libsofthsm2.so.
	Module string

	// InitArgs is handed to the library in C_Initialize as pReserved, ended by a zero byte. PKCS #11 v2.40 has nothing there (section 5.4), so
	// it is empty for nearly all libraries, and refused by most where it is not.
	InitArgs string

	// Label or Serial, exactly one of them, chooses the token among those that Module offers. Labels are not unique: if two tokens
	// have this one, only the serial number will do. Slot numbers cannot be used, because they change.
	Label, Serial string

	// PIN returns the PIN of the token's normal user. It is asked for once in Open, right before the login, and what it returned
	// is overwritten right after. It is a function so that a Config can be printed. See [PINFile].
	PIN func() ([]byte, error)

	// PINUncertain reports whether an attempt to log in with this PIN had no answer, so that it may have been wrong. It is not tried then if the token
	// says that it counts a wrong one. Optional.
	PINUncertain func() bool

	// TryPIN is called right before the PIN is tried, and may refuse that. What it returns is called once, with what came of it: nil if the PIN was
	// right, an error that is [ErrPINWrong] if the token refused it, any other if that is not known. The PIN is good until then. Optional.
	TryPIN func(pin []byte) (answered func(error), err error)

	// Patience has a process that can be replaced end itself when the module hangs. Optional; there is no limit without it.
	Patience Patience

	// Sessions is how many operations with keys may be in the module at a time. Others wait. 16 if it is 0; fewer if the
	// token says that it does not have as many, beside the seven that are used for other things.
	Sessions int

	// SessionCopies has keys used through copies of them that live in the module's memory as long as the process (C_CopyObject to a
	// session object). For SoftHSM, which reads and locks two files for each use of a key of the token, this makes an operation three
	// times as fast. It is no use with hardware. A key whose copying fails, as that of one made without SessionCopies does, is used as it is.
	SessionCopies bool

	// IV says who makes the IVs of encryptions. A token that does it in another way is refused by Open and Init.
	IV IVSource

	// FoundIV, if it is not nil, has Init find out by test who makes the IVs, whatever IV says, and is told before Init makes anything that stays. Its
	// error ends Init. Open does not heed it.
	FoundIV func(IVSource) error

	// SyncDir is the directory where a token of files, such as SoftHSM's, keeps its keys, for modules that do not call fsync
	// themselves. A key that was made counts as made after everything in SyncDir is on the disk. Optional; empty for hardware.
	SyncDir string
}

const defaultSessions = 16

// PINFile returns a function for [Config].PIN that reads the PIN from a file. One newline at its end does not belong to the PIN.
func PINFile(name string) func() ([]byte, error) {
	return func() ([]byte, error) {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		pin := b
		if n := len(pin); n > 0 && pin[n-1] == '\n' {
			pin = pin[:n-1]
		}
		if n := len(pin); n > 0 && pin[n-1] == '\r' {
			pin = pin[:n-1]
		}
		if len(pin) == 0 {
			return nil, fmt.Errorf("%s holds no PIN", name)
		}
		return pin, nil
	}
}

func (c Config) check() error {
	switch {
	case c.Module == "":
		return errors.New("no PKCS#11 module is named")
	case (c.Label == "") == (c.Serial == ""):
		return errors.New("a token must be named by exactly one of label and serial number")
	case c.PIN == nil:
		return errors.New("no PIN is given for the token")
	case int(c.IV) >= len(ivSources):
		return fmt.Errorf("there is no %v", c.IV)
	case strings.Contains(c.InitArgs, "\x00"):
		return errors.New("the argument of C_Initialize has a zero byte in it")
	case c.Sessions < 0:
		return fmt.Errorf("%d sessions are too few", c.Sessions)
	}
	return nil
}

// token returns how c names its token, for messages.
func (c Config) token() string {
	if c.Serial != "" {
		return fmt.Sprintf("with serial number %q", c.Serial)
	}
	return fmt.Sprintf("labelled %q", c.Label)
}

func (c Config) matches(i Info) bool {
	return c.Label != "" && i.Label == c.Label || c.Serial != "" && i.Serial == c.Serial
}

// Info is what a token says of itself.
type Info struct {
	Module       string // path of the PKCS #11 library
	Library      string // what the library calls itself, with its version
	Label        string
	Serial       string
	Manufacturer string
	Model        string
	Hardware     string // version
	Firmware     string // version
}

// String names the token as a person would look for it.
func (i Info) String() string { return fmt.Sprintf("%q (serial number %s)", i.Label, i.Serial) }

// names lists tokens for a message.
func names(tokens []Info) string {
	if len(tokens) == 0 {
		return "no initialised token at all"
	}
	s := make([]string, len(tokens))
	for i, t := range tokens {
		s[i] = t.String()
	}
	return strings.Join(s, ", ")
}
