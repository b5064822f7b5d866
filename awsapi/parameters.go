package awsapi

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"strongroom/kms"
)

// What the audit record shows of a request is decided once, when its type is compiled: no blob, nothing sensitive, and none of these, which
// either give a right to whoever reads them or are as large as a blob.
var neverRecorded = []string{"GrantToken", "GrantTokens", "Recipient"}

// alwaysRecorded are members that a record shows also where the request left them out, as CloudTrail does. The same goes for what is required.
var alwaysRecorded = []string{"BypassPolicyLockoutSafetyCheck", "Description", "MultiRegion"}

// compileRecord decides what a record shows of n, a field of a request.
func (n *node) compileRecord() {
	if n.kind == kindBlob || n.rule.sensitive || slices.Contains(neverRecorded, n.wire) {
		return
	}
	n.recorded = true
	n.always = n.rule.required || slices.Contains(alwaysRecorded, n.wire)
	n.label, _ = jsontext.AppendQuote(nil, n.path)
	n.label = append(n.label, ':')
}

// appendParameters appends the members of req, a pointer to the struct that n was compiled from, as the audit record shows them: under the names that
// messages use, in the order of the struct. It appends nothing if there is nothing to show.
func (n *node) appendParameters(b []byte, req any) []byte {
	start := len(b)
	if b = n.appendObject(b, reflect.ValueOf(req).Elem()); len(b) == start+len("{}") {
		return b[:start]
	}
	return b
}

// appendObject appends the structure v.
func (n *node) appendObject(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	first := len(b)
	for _, f := range n.fields {
		if !f.recorded {
			continue
		}
		field := v.Field(f.index)
		if field.IsZero() && (f.pointer || !f.always) {
			continue
		}
		if len(b) > first {
			b = append(b, ',')
		}
		b = append(b, f.label...)
		if f.pointer {
			field = field.Elem()
		}
		b = f.appendValue(b, field)
	}
	return append(b, '}')
}

// appendValue appends one value.
func (n *node) appendValue(b []byte, v reflect.Value) []byte {
	switch n.kind {
	case kindString:
		return appendText(b, v.String())
	case kindBool:
		return strconv.AppendBool(b, v.Bool())
	case kindInt:
		return strconv.AppendInt(b, v.Int(), 10)
	case kindEnum:
		return appendText(b, v.Addr().Interface().(enum).String())
	case kindTime:
		return strconv.AppendFloat(b, float64(v.Addr().Interface().(*kms.Time).UnixMilli())/1000, 'f', -1, 64)
	case kindMap:
		return appendMap(b, *v.Addr().Interface().(*map[string]string))
	case kindStruct:
		return n.appendObject(b, v)
	case kindList:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.item.appendValue(b, v.Index(i))
		}
		return append(b, ']')
	}
	return append(b, "null"...) // a blob: compileRecord lets none come here
}

// appendMap appends a map in the order of its names, so that equal requests have equal records.
func appendMap(b []byte, m map[string]string) []byte {
	var few [8]string
	names := few[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
		b = append(b, ':')
		b = appendText(b, m[name])
	}
	return append(b, '}')
}

// appendText appends a string. What does not print, the audit log escapes.
func appendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // an error is about text that is not UTF-8, and the decoder lets through none
	return b
}
