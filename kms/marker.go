package kms

import (
	"encoding/base64"
	"strings"
)

// A marker says where the next page of a list begins. To clients it is opaque. It is the unpadded base64url encoding of
//
//	version (1) = 1 ‖ name of the list ‖ 0 ‖ position
//
// where position is the last entry of the page before. It is not secret and need not be authenticated: a caller who makes one up
// begins at another place in a list of its own.
const markerVersion = 1

// newMarker returns the marker that follows position in a list.
func newMarker(list, position string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(rune(markerVersion)) + list + "\x00" + position))
}

// parseMarker returns the position in a marker of the list, or "" for no marker, which is the beginning.
func parseMarker(list, marker string) (position string, err error) {
	if marker == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(marker)
	if err != nil || strings.ContainsAny(marker, "\r\n") {
		return "", errorf(InvalidMarker, "Could not deserialize marker '%s'", marker)
	}
	position, ok := strings.CutPrefix(string(b), string(rune(markerVersion))+list+"\x00")
	if !ok || position == "" {
		return "", errorf(InvalidMarker, "Could not deserialize marker '%s'", marker)
	}
	return position, nil
}

// pageSize returns how many entries to list: what was asked for, at most most, or usual.
func pageSize(limit *int32, usual, most int) int {
	if limit == nil {
		return usual
	}
	return min(int(*limit), most)
}
