package store

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

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

// checkNewRef returns an error unless ref is one or none.
func checkNewRef(ref []byte) error {
	if len(ref) == 0 {
		return nil
	}
	return checkRef(ref)
}

// newRef returns ref as a column holds it. A nil slice is NULL, an empty one would not be.
func newRef(ref hsm.Ref) []byte {
	if len(ref) == 0 {
		return nil
	}
	return ref
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

// A reasonColumn reads why a material was made.
type reasonColumn struct{ to *kms.RotationType }

func (c reasonColumn) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("damaged: the reason for a material is stored as %T", v)
	}
	if err := checkReason(kms.RotationType(s)); err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	*c.to = kms.RotationType(s)
	return nil
}

// checkReason returns an error unless r is a reason that this program knows, or none.
func checkReason(r kms.RotationType) error {
	switch r {
	case "", kms.RotationAutomatic, kms.RotationOnDemand:
		return nil
	}
	return fmt.Errorf("unknown reason %q for a material", string(r))
}

// An optionalColumn reads text, or none as the empty one.
type optionalColumn struct{ to *string }

func (c optionalColumn) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.to = ""
	case string:
		*c.to = v
	default:
		return fmt.Errorf("damaged: text is stored as %T", v)
	}
	return nil
}

// optional returns s as an optional column holds it; the empty text is none.
func optional(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// An operationsColumn reads a set of operations.
type operationsColumn struct{ to *kms.GrantOperations }

func (c operationsColumn) Scan(v any) error {
	n, ok := v.(int64)
	if !ok || n != int64(kms.GrantOperations(n)) {
		return fmt.Errorf("damaged: operations are stored as something else")
	}
	*c.to = kms.GrantOperations(n)
	return nil
}

// A contextColumn reads the pairs of an encryption context, a JSON object, or none as nil. No pairs are not the same as none.
type contextColumn struct{ to *map[string]string }

func (c contextColumn) Scan(v any) error {
	*c.to = nil
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		if err := json.Unmarshal([]byte(v), c.to); err != nil || *c.to == nil {
			return fmt.Errorf("damaged: an encryption context is not stored as an object of JSON")
		}
		return nil
	default:
		return fmt.Errorf("damaged: an encryption context is stored as %T", v)
	}
}

// contextText returns a context as a contextColumn holds it.
func contextText(context map[string]string) (any, error) {
	if context == nil {
		return nil, nil
	}
	for name, value := range context {
		// JSON would hold something else in its place.
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("an encryption context is not UTF-8")
		}
	}
	text, err := json.Marshal(context)
	return string(text), err
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
