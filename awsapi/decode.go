package awsapi

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"io"
	"math"
	"math/bits"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"strongroom/kms"
)

// maxDepth bounds the nesting of members that nobody knows. Those that are known are as deep as the request type.
const maxDepth = 64

// A decoder reads one request body. What it says about a wrong one are the words of the front end of AWS's JSON 1.1 services: a type that
// does not fit ends the reading with a SerializationException, at the first; a value that the model forbids is noted, and all that
// were noted become one ValidationException.
type decoder struct {
	json    *jsontext.Decoder
	in      bytes.Buffer // over the body, which jsontext then reads in place, without a copy of its own
	scratch []byte       // a string without its escapes
	path    []step       // to the member being read
	faults  faults
}

// A step leads to a member of a structure, or, without a name, to an element of a list.
type step struct {
	name  string
	index int
}

var decoders = sync.Pool{New: func() any {
	return &decoder{json: jsontext.NewDecoder(new(bytes.Buffer))}
}}

// decode reads body into req, a pointer to the struct that n was compiled from. It keeps nothing of body. Members are found by their exact
// names; those that nobody knows are passed over, and null is the same as nothing.
func (n *node) decode(body []byte, req any) error {
	d := decoders.Get().(*decoder)
	defer d.release()
	d.in = *bytes.NewBuffer(body)
	d.json.Reset(&d.in)

	switch d.json.PeekKind() {
	case jsontext.KindBeginObject:
	case jsontext.KindBeginArray:
		return mismatch(kindStruct, jsontext.KindBeginArray)
	default:
		return serialization("")
	}
	if err := d.object(n, reflect.ValueOf(req).Elem()); err != nil {
		return err
	}
	if _, err := d.json.ReadToken(); err != io.EOF {
		return serialization("")
	}
	return d.faults.err()
}

// release forgets the request and puts d back.
func (d *decoder) release() {
	d.in = bytes.Buffer{}
	d.json.Reset(&d.in)
	clear(d.scratch[:cap(d.scratch)])
	d.path = d.path[:0]
	d.faults.reset()
	decoders.Put(d)
}

// object reads a structure into v.
func (d *decoder) object(n *node, v reflect.Value) error {
	if _, err := d.json.ReadToken(); err != nil {
		return syntax(err)
	}
	first := len(d.faults.list)
	var seen uint64
	for d.json.PeekKind() != jsontext.KindEndObject {
		name, err := d.text()
		if err != nil {
			return err
		}
		field := n.byName[string(name)]
		if field == nil {
			if err := d.skip(); err != nil {
				return err
			}
			continue
		}
		mark := len(d.faults.list)
		d.path = append(d.path, step{name: field.path})
		present, err := d.member(field, v.Field(field.index))
		if err != nil {
			return err
		}
		d.path = d.path[:len(d.path)-1]
		d.faults.place(mark, field.index)
		if present {
			seen |= 1 << field.index
		}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return syntax(err)
	}
	for missing := n.required &^ seen; missing != 0; missing &= missing - 1 {
		field := n.fields[bits.TrailingZeros64(missing)]
		mark := len(d.faults.list)
		d.path = append(d.path, step{name: field.path})
		d.missing(field)
		d.path = d.path[:len(d.path)-1]
		d.faults.place(mark, field.index)
	}
	d.faults.sort(first)
	return nil
}

// member reads one value into the field v and checks it. It reports whether there was one: null is none.
func (d *decoder) member(n *node, v reflect.Value) (present bool, err error) {
	k := d.json.PeekKind()
	if k == jsontext.KindNull {
		if _, err := d.json.ReadToken(); err != nil {
			return false, syntax(err)
		}
		return false, nil
	}
	if err := d.expect(n.kind, k); err != nil {
		return false, err
	}
	if n.pointer {
		v.Set(reflect.New(n.typ))
		v = v.Elem()
	}
	switch n.kind {
	case kindStruct:
		return true, d.object(n, v)
	case kindList:
		return true, d.listOf(n, v)
	case kindMap:
		return true, d.pairs(n, v)
	case kindString, kindEnum:
		return true, d.textInto(n, v)
	case kindBlob:
		return true, d.blob(n, v)
	}
	raw, err := d.json.ReadValue()
	if err != nil {
		return false, syntax(err)
	}
	switch n.kind {
	case kindBool:
		v.SetBool(k == jsontext.KindTrue)
	case kindInt:
		d.integer(n, v, raw)
	case kindTime:
		return true, moment(v, raw)
	}
	return true, nil
}

// expect returns why the next value, of kind k in JSON, cannot be one of kind want, or nil.
func (d *decoder) expect(want kind, k jsontext.Kind) error {
	if k == jsontext.KindInvalid || k == jsontext.KindEndObject || k == jsontext.KindEndArray {
		_, err := d.json.ReadValue()
		return syntax(err)
	}
	if !want.takes(k) {
		return mismatch(want, k)
	}
	return nil
}

// text reads a string and returns it without quotes and escapes. It is good until the next read.
func (d *decoder) text() ([]byte, error) {
	raw, err := d.json.ReadValue()
	if err != nil {
		return nil, syntax(err)
	}
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, nil
	}
	if cap(d.scratch) < len(raw) {
		clear(d.scratch[:cap(d.scratch)])
		d.scratch = make([]byte, 0, len(raw))
	}
	d.scratch, err = jsontext.AppendUnquote(d.scratch[:0], raw)
	if err != nil {
		return nil, syntax(err)
	}
	return d.scratch, nil
}

// textInto reads a string, or a type that is one on the wire.
func (d *decoder) textInto(n *node, v reflect.Value) error {
	text, err := d.text()
	if err != nil {
		return err
	}
	if bad := n.readText(text, v); bad != 0 {
		d.refuse(n, bad, string(text))
	}
	return nil
}

// readText sets v from text and returns the rules that text breaks.
func (n *node) readText(text []byte, v reflect.Value) violations {
	if n.kind == kindEnum {
		if v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(text) != nil {
			return notInEnum
		}
		return 0
	}
	s := string(text)
	v.SetString(s)
	return n.rule.checkText(s)
}

// blob reads bytes in base64. There is one way to write each: with padding, without line breaks, unused bits zero.
func (d *decoder) blob(n *node, v reflect.Value) error {
	text, err := d.text()
	if err != nil {
		return err
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	size, err := base64.StdEncoding.Strict().Decode(b, text)
	// The decoder passes over line breaks, and so a text with some is longer than what it stands for.
	if err != nil || base64.StdEncoding.EncodedLen(size) != len(text) {
		clear(b)
		return serialization("")
	}
	v.SetBytes(b[:size])
	if bad := n.rule.checkSize(int64(size)); bad != 0 {
		d.refuse(n, bad, "")
	}
	return nil
}

// integer reads a number as AWS does: a fraction is cut off, and a number that does not fit is a matter of range, not of form.
func (d *decoder) integer(n *node, v reflect.Value, raw []byte) {
	i, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		f, _ := strconv.ParseFloat(string(raw), 64) // an infinity if there is no such float
		f = math.Trunc(f)
		if f < math.MinInt32 || f > math.MaxInt32 {
			d.refuseRange(n, f > 0, string(raw[:min(len(raw), maxEcho+1)]))
			return
		}
		i = int64(f)
	}
	v.SetInt(i)
	if bad := n.rule.checkSize(i); bad != 0 {
		d.refuse(n, bad, strconv.FormatInt(i, 10))
	}
}

// moment reads seconds since 1970, of which milliseconds are kept.
func moment(v reflect.Value, raw []byte) error {
	const year10000 = 253402300800
	s, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.Abs(s) >= year10000 {
		return serialization("")
	}
	*v.Addr().Interface().(*kms.Time) = kms.Time{Time: time.UnixMilli(int64(math.Round(s * 1000))).UTC()}
	return nil
}

// skip passes over the value of a member that nobody knows.
func (d *decoder) skip() error {
	depth := d.json.StackDepth()
	for {
		if _, err := d.json.ReadToken(); err != nil {
			return syntax(err)
		}
		switch now := d.json.StackDepth(); {
		case now <= depth:
			return nil
		case now > maxDepth:
			return serialization("")
		}
	}
}
