package pkcs11

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A TokenState is a token as anybody sees it, without a login.
type TokenState struct {
	Info
	Slot        uint
	PIN         string   // what the token says of the user PIN: "set", or why it cannot be used
	Sessions    uint     // open now, of this application or of all, as the token counts
	MaxSessions uint     // 0 if there is no limit, or the token does not say
	Lacks       []string `json:",omitempty"` // mechanisms that strongroom needs and the token does not list
}

// An Object is an object of the token that strongroom has made.
type Object struct {
	ID    string // CKA_ID in hexadecimal, whatever its length
	Label string
	Class string // as the standard calls it
	Use   string // "canary", "check" for what a check that was killed has left, or "key"
}

// An Inventory is what a module shows.
type Inventory struct {
	Tokens  []TokenState
	Objects []Object `json:",omitempty"` // of the token that was asked for, in the order of their labels
}

// TakeInventory lists the tokens of c.Module. If c names one of them, it logs in there, for which the PIN is tried once at most, and lists the objects
// that strongroom has made; the tokens are returned also if that fails. It makes and changes nothing.
func TakeInventory(ctx context.Context, c Config) (*Inventory, error) {
	if c.Label == "" && c.Serial == "" {
		raw, args, err := initialize(c)
		if err != nil {
			return nil, err
		}
		defer func() {
			raw.Finalize()
			raw.Destroy()
			freeArgs(args)
		}()
		states, err := tokenStates(raw, c.Module)
		return &Inventory{Tokens: states}, err
	}
	l, unlock, err := openAlone(ctx, c)
	if err != nil {
		return nil, err
	}
	defer release()
	defer unlock()
	defer l.close()
	states, err := tokenStates(l.raw, c.Module)
	if err != nil {
		return nil, err
	}
	i := &Inventory{Tokens: states}
	i.Objects, err = ourObjects(ctx, l, c)
	return i, err
}

func tokenStates(raw *p11.Ctx, path string) ([]TokenState, error) {
	slots, tokens, err := list(raw, path)
	if err != nil {
		return nil, err
	}
	var states []TokenState
	for i, info := range tokens {
		t, err := raw.GetTokenInfo(slots[i])
		if err != nil {
			return nil, fault("C_GetTokenInfo", err)
		}
		s := TokenState{Info: info, Slot: slots[i], PIN: pinState(t.Flags), Sessions: known(t.SessionCount), MaxSessions: known(t.MaxSessionCount)}
		mechanisms, err := raw.GetMechanismList(slots[i])
		if err != nil {
			return nil, fault("C_GetMechanismList", err)
		}
		for _, n := range neededMechanisms {
			if !slices.ContainsFunc(mechanisms, func(m *p11.Mechanism) bool { return m.Mechanism == n.mechanism }) {
				s.Lacks = append(s.Lacks, n.name)
			}
		}
		states = append(states, s)
	}
	return states, nil
}

func pinState(flags uint) string {
	for _, f := range []struct {
		flag uint
		text string
	}{
		{p11.CKF_USER_PIN_LOCKED, "locked"},
		{p11.CKF_USER_PIN_FINAL_TRY, "one more wrong one locks it"},
		{p11.CKF_USER_PIN_COUNT_LOW, "wrong ones are being counted"},
		{p11.CKF_USER_PIN_TO_BE_CHANGED, "to be changed"},
		{p11.CKF_USER_PIN_INITIALIZED, "set"},
	} {
		if flags&f.flag != 0 {
			return f.text
		}
	}
	return "not set"
}

// ourObjects logs in to the token of m and lists what strongroom has made there.
func ourObjects(ctx context.Context, m module, c Config) ([]Object, error) {
	info, flags, err := m.info()
	if err != nil {
		return nil, err
	}
	if err := mayLogIn(info, flags, c.PINUncertain != nil && c.PINUncertain()); err != nil {
		return nil, err
	}
	var open openings
	open.holder = make(map[p11.SessionHandle]*session)
	t := &Token{module: m, info: info}
	t.admin = newPool(m, &open, make(chan struct{}), 1)
	defer t.admin.drain(context.WithoutCancel(ctx))
	if err := t.login(ctx, c); err != nil {
		return nil, err
	}
	var all []Object
	err = t.admin.with(ctx, func(s *session) error {
		found, err := m.find(s.handle, anything())
		if err != nil {
			return err
		}
		for _, o := range found {
			if err := ctx.Err(); err != nil {
				return err
			}
			read, err := m.attributes(s.handle, o, p11.CKA_CLASS, p11.CKA_ID, p11.CKA_LABEL)
			if stale(err) || has(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE) {
				continue // destroyed since, or not ours
			}
			if err != nil {
				return err
			}
			label := string(read[2].Value)
			if !strings.HasPrefix(label, labelPrefix) {
				continue
			}
			use := "key"
			switch {
			case label == canaryLabel:
				use = "canary"
			case strings.HasPrefix(label, checkPrefix):
				use = "check"
			}
			all = append(all, Object{ID: hex.EncodeToString(read[1].Value), Label: label, Class: className(read[0].Value), Use: use})
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Object) int {
		return strings.Compare(a.Label+"\x00"+a.ID+"\x00"+a.Class, b.Label+"\x00"+b.ID+"\x00"+b.Class)
	})
	return all, err
}

func className(value []byte) string {
	for _, c := range []struct {
		class uint
		name  string
	}{{p11.CKO_SECRET_KEY, "CKO_SECRET_KEY"}, {p11.CKO_PRIVATE_KEY, "CKO_PRIVATE_KEY"}, {p11.CKO_PUBLIC_KEY, "CKO_PUBLIC_KEY"}} {
		if sameValue(value, ulong(c.class)) {
			return c.name
		}
	}
	return fmt.Sprintf("class %x", value)
}

// openAlone opens a library for a look at its token, and claims the process for it. While the directory of the token is locked, no other process logs in.
// The caller closes the library, unlocks the directory, and releases the process.
func openAlone(ctx context.Context, c Config) (l *library, unlock func(), err error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	if other, ok := claim(c.Module); !ok {
		return nil, nil, fmt.Errorf("a token of %s is open in this process already, and a process has one at most", other)
	}
	waiting, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if unlock, err = (disk{dir: c.SyncDir}).lock(waiting); err != nil {
		release()
		return nil, nil, err
	}
	if err = restoreTokens(c.SyncDir); err != nil {
		err = fmt.Errorf("%w: %v", hsm.ErrUnavailable, err)
	} else {
		l, err = openLibrary(c)
	}
	if err != nil {
		unlock()
		release()
		return nil, nil, err
	}
	return l, unlock, nil
}
