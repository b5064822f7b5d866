package policy

import "unicode/utf8"

// A search finds a chunk that has "?" in a value, in one pass and without ever going back: Shift-And (Baeza-Yates and Gonnet, "A New Approach to
// Text Searching", 1992). Bit i of its state says that the first i+1 characters of the chunk match the characters before the current place.
// Comparing at every place instead takes the product of the lengths, and a policy and an encryption context of the largest sizes then
// cost a second.
//
// A chunk of n characters costs n/64 steps for each character of the value. So that it has no more memory than that times 64, only the
// characters that occur at least n/64 times in it, of which there are at most 64, have a row of bits; of others the places are listed.
type search struct {
	n      int
	any    []uint64          // the places of "?"
	rows   map[rune][]uint64 // the places of a frequent character
	places map[rune][]int    // and of a rare one, ascending
}

func newSearch(c *chunk) *search {
	words := (c.runes + 63) / 64
	f := &search{n: c.runes, any: make([]uint64, words), rows: make(map[rune][]uint64), places: make(map[rune][]int)}
	at := 0
	for _, p := range c.pieces {
		for range p.skip {
			f.any[at/64] |= 1 << (at % 64)
			at++
		}
		for text := p.text; text != ""; at++ {
			r, w := character(text)
			text = text[w:]
			f.places[r] = append(f.places[r], at)
		}
	}
	for r, places := range f.places {
		if len(places) < words {
			continue
		}
		row := make([]uint64, words)
		for _, p := range places {
			row[p/64] |= 1 << (p % 64)
		}
		f.rows[r] = row
		delete(f.places, r)
	}
	return f
}

// cut finds the first place in s where the chunk matches and returns what is after it.
func (f *search) cut(s string, fold bool) (after string, ok bool) {
	var few [4]uint64
	state := few[:]
	if len(f.any) > len(few) {
		state = make([]uint64, len(f.any))
	}
	state = state[:len(f.any)]
	last, lastBit := (f.n-1)/64, uint64(1)<<((f.n-1)%64)
	for s != "" {
		r, w := character(s)
		s = s[w:]
		if fold && 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		carry := uint64(1) // the chunk may begin here
		row, places := f.rows[r], f.places[r]
		for k := range state {
			mask := f.any[k]
			if row != nil {
				mask |= row[k]
			}
			for len(places) > 0 && places[0]/64 == k {
				mask |= 1 << (places[0] % 64)
				places = places[1:]
			}
			x := state[k]
			state[k] = (x<<1 | carry) & mask
			carry = x >> 63
		}
		if state[last]&lastBit != 0 {
			return s, true
		}
	}
	return "", false
}

// character returns the first character of s, which is not empty, and its length. A byte that is not UTF-8 is a character of its own.
func character(s string) (rune, int) {
	r, w := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && w == 1 {
		r = utf8.MaxRune + 1 + rune(s[0])
	}
	return r, w
}
