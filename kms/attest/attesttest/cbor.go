package attesttest

// The major types of CBOR (RFC 8949, section 3.1).
const (
	majorUnsigned = 0
	majorNegative = 1
	majorOctets   = 2
	majorText     = 3
	majorArray    = 4
	majorMap      = 5
	majorTag      = 6
)

// Items that have no argument (RFC 8949, section 3.3).
const (
	cborFalse     = "\xf4"
	cborNull      = "\xf6"
	cborUndefined = "\xf7"
	cborBreak     = "\xff"
)

// appendHead appends the head of an item, in the shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n < 1<<8:
		return appendWideHead(b, major, n, 1)
	case n < 1<<16:
		return appendWideHead(b, major, n, 2)
	case n < 1<<32:
		return appendWideHead(b, major, n, 4)
	}
	return appendWideHead(b, major, n, 8)
}

// appendWideHead appends the head of an item with an argument of 1, 2, 4 or 8 bytes, whether it needs them or not.
func appendWideHead(b []byte, major byte, n uint64, width int) []byte {
	info := map[int]byte{1: 24, 2: 25, 4: 26, 8: 27}[width]
	b = append(b, major<<5|info)
	for i := width - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

// appendIndefinite appends the head of an item of indefinite length, which a break ends.
func appendIndefinite(b []byte, major byte) []byte { return append(b, major<<5|31) }

func appendOctets(b, value []byte) []byte {
	return append(appendHead(b, majorOctets, uint64(len(value))), value...)
}

func appendText(b []byte, value string) []byte {
	return append(appendHead(b, majorText, uint64(len(value))), value...)
}

func octets(value []byte) []byte   { return appendOctets(nil, value) }
func text(value string) []byte     { return appendText(nil, value) }
func unsigned(value uint64) []byte { return appendHead(nil, majorUnsigned, value) }

// optional returns a byte string, or null for none.
func optional(value []byte) []byte {
	if value == nil {
		return []byte(cborNull)
	}
	return octets(value)
}

// array returns an array of encoded items.
func array(items ...[]byte) []byte {
	b := appendHead(nil, majorArray, uint64(len(items)))
	for _, item := range items {
		b = append(b, item...)
	}
	return b
}

// chunks returns a string in chunks of at most n bytes each (RFC 8949, section 3.2.3).
func chunks(major byte, value []byte, n int) []byte {
	b := appendIndefinite(nil, major)
	for len(value) > 0 {
		k := min(n, len(value))
		b = append(appendHead(b, major, uint64(k)), value[:k]...)
		value = value[k:]
	}
	return append(b, cborBreak...)
}

// A member is one entry of a map, encoded.
type member struct{ name, value []byte }

// A members is the entries of a map in their order.
type members []member

// encode returns the map.
func (m members) encode(indefinite bool) []byte {
	var b []byte
	if indefinite {
		b = appendIndefinite(nil, majorMap)
	} else {
		b = appendHead(nil, majorMap, uint64(len(m)))
	}
	for _, e := range m {
		b = append(append(b, e.name...), e.value...)
	}
	if indefinite {
		b = append(b, cborBreak...)
	}
	return b
}

// index returns where the text name is.
func (m members) index(name string) int {
	for i, e := range m {
		if string(e.name) == string(text(name)) {
			return i
		}
	}
	panic("attesttest: there is no " + name)
}

// set gives a member another value.
func (m members) set(name string, value []byte) { m[m.index(name)].value = value }

// rename gives a member another name, encoded.
func (m members) rename(name string, encoded []byte) { m[m.index(name)].name = encoded }

// get returns the value of a member.
func (m members) get(name string) []byte { return m[m.index(name)].value }

// add appends a member.
func (m *members) add(name string, value []byte) { *m = append(*m, member{text(name), value}) }

// remove takes a member out.
func (m *members) remove(name string) {
	i := m.index(name)
	*m = append((*m)[:i:i], (*m)[i+1:]...)
}
