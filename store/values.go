package store

import (
	"fmt"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

// The types below stand between a column and a type of kms, so that a value that cannot be is found when it is read. They
// name what is wrong with a value and do not show it.

// A keyIDColumn reads a key id.
type keyIDColumn struct{ to *kms.KeyID }

func (c keyIDColumn) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("damaged: a key id is stored as %T", v)
	}
	id, err := kms.ParseKeyID(s)
	if err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	*c.to = id
	return nil
}

// An idColumn reads the id of a material.
type idColumn struct{ to *hsm.ID }

func (c idColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok {
		return fmt.Errorf("damaged: a material id is stored as %T", v)
	}
	if len(b) != len(c.to) {
		return fmt.Errorf("damaged: a material id has %d bytes", len(b))
	}
	copy(c.to[:], b)
	return nil
}

// A refColumn reads a device's name for a key, or none. It keeps no reference to the driver's memory.
type refColumn struct{ to *hsm.Ref }

func (c refColumn) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.to = nil
	case []byte:
		if err := checkRef(v); err != nil {
			return fmt.Errorf("damaged: %w", err)
		}
		*c.to = append(hsm.Ref(nil), v...)
	default:
		return fmt.Errorf("damaged: a ref is stored as %T", v)
	}
	return nil
}

// maxRef is the size of the largest [hsm.Ref], in bytes.
const maxRef = 256

func checkRef(ref []byte) error {
	if len(ref) < 1 || len(ref) > maxRef {
		return fmt.Errorf("a ref has %d bytes", len(ref))
	}
	return nil
}

// A timeColumn reads a time, or none as the zero time.
type timeColumn struct{ to *time.Time }

func (c timeColumn) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.to = time.Time{}
	case int64:
		*c.to = time.UnixMilli(v).UTC()
	default:
		return fmt.Errorf("damaged: a time is stored as %T", v)
	}
	return nil
}

// millis returns t as a time column holds it; the zero time is none.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// A stateColumn reads the state of a key.
type stateColumn struct{ to *kms.KeyState }

func (c stateColumn) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("damaged: a state is stored as %T", v)
	}
	if err := checkState(kms.KeyState(s)); err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	*c.to = kms.KeyState(s)
	return nil
}

// checkState returns an error unless s is a state that this program knows.
func checkState(s kms.KeyState) error {
	switch s {
	case kms.StateCreating, kms.StateEnabled, kms.StateDisabled, kms.StatePendingDeletion, kms.StateDestroying:
		return nil
	}
	return fmt.Errorf("unknown key state %q", string(s))
}

// A flagColumn reads a truth, kept as 0 or 1.
type flagColumn struct{ to *bool }

func (c flagColumn) Scan(v any) error {
	n, ok := v.(int64)
	if !ok || n != 0 && n != 1 {
		return fmt.Errorf("damaged: a flag is neither 0 nor 1")
	}
	*c.to = n == 1
	return nil
}

// flag returns b as a flag column holds it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
