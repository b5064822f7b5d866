package kms

import (
	"strconv"
	"time"
)

// Time is a moment as AWS JSON 1.1 writes it: a number of seconds since 1970 with a fraction. KMS shows milliseconds,
// and so no more than milliseconds are kept.
type Time struct{ time.Time }

// MarshalJSON writes t as seconds with up to three decimal places.
func (t Time) MarshalJSON() ([]byte, error) {
	ms := t.UnixMilli()
	return strconv.AppendFloat(nil, float64(ms)/1000, 'f', -1, 64), nil
}
