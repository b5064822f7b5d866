package awsapi

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"strongroom/kms"
)

// kind is what a member is on the wire (Smithy 2.0, "Simple types" and "Aggregate types").
type kind uint8

const (
	kindString kind = iota + 1
	kindBool
	kindInt  // 32 bits
	kindBlob // base64 on the wire
	kindTime // seconds since 1970
	kindEnum // a string that a type of its own reads
	kindList
	kindMap // of strings
	kindStruct
)

// An enum is a type that names its values: the only ones that UnmarshalText takes. String returns what it took.
type enum interface {
	encoding.TextUnmarshaler
	Values() []string
	String() string
}

// A node is how one member is decoded, what must be true of it, and whether the audit record shows it. A request type is compiled into a tree of
// them once; what walks the tree then looks at no type and no tag again.
type node struct {
	kind    kind
	pointer bool         // the field is a pointer to the type
	typ     reflect.Type // without the pointer
	rule    rule

	wire  string // the member's name: KeyId
	path  string // the same in a message: keyId
	index int    // of the field in its struct

	recorded bool   // the audit record shows it, under label
	always   bool   // also where the request says nothing of it
	label    []byte // "keyId":

	item     *node            // list
	fields   []*node          // structure, in the order of the struct
	byName   map[string]*node // the same
	required uint64           // bit i is set if fields[i] is required
}

// compile returns the plan for the request type t. It panics if t has a field that the wire cannot carry or a tag that says nothing:
// both are mistakes in the source, and every plan is compiled when the program starts.
func compile(t reflect.Type) *node {
	n, err := compileType(t, rule{}, nil)
	if err != nil {
		panic(fmt.Sprintf("awsapi: %v: %v", t, err))
	}
	if n.kind != kindStruct || n.pointer {
		panic(fmt.Sprintf("awsapi: %v: a request is a struct", t))
	}
	return n
}

var (
	typeTime = reflect.TypeFor[kms.Time]()
	typeEnum = reflect.TypeFor[enum]()
	typeMap  = reflect.TypeFor[map[string]string]()
	typeBlob = reflect.TypeFor[[]byte]()
)

// compileType makes the node of a field, or of an element of a list. The types above it are in outer: a request cannot contain itself,
// which bounds the depth of everything that is decoded.
func compileType(t reflect.Type, r rule, outer []reflect.Type) (*node, error) {
	n := &node{rule: r}
	if t.Kind() == reflect.Pointer {
		n.pointer = true
		t = t.Elem()
	}
	n.typ = t
	switch {
	case t == typeTime:
		n.kind = kindTime
	case reflect.PointerTo(t).Implements(typeEnum):
		n.kind = kindEnum
		n.rule.enum = reflect.New(t).Interface().(enum).Values()
		if r.enum != nil {
			return nil, fmt.Errorf("the type has its own values")
		}
		return n, n.rule.fitsEnum()
	case t == typeBlob:
		n.kind = kindBlob
	case t == typeMap:
		n.kind = kindMap
		if r.item != nil {
			if err := r.item.fits(kindString); err != nil {
				return nil, err
			}
		}
	case t.Kind() == reflect.String:
		n.kind = kindString
	case t.Kind() == reflect.Bool:
		n.kind = kindBool
	case t.Kind() == reflect.Int32:
		n.kind = kindInt
	case t.Kind() == reflect.Slice:
		n.kind = kindList
		var of rule
		if r.item != nil {
			of = *r.item
		}
		item, err := compileType(t.Elem(), of, outer)
		if err != nil {
			return nil, fmt.Errorf("element: %w", err)
		}
		if item.pointer || item.kind != kindString && item.kind != kindEnum && item.kind != kindStruct {
			return nil, fmt.Errorf("a list of %v is not supported", t.Elem())
		}
		n.item = item
	case t.Kind() == reflect.Struct:
		n.kind = kindStruct
		if err := n.compileFields(outer); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%v is not supported", t)
	}
	if n.pointer && (n.kind == kindBlob || n.kind == kindList || n.kind == kindMap) {
		return nil, fmt.Errorf("a pointer to %v says no more than a nil one", t)
	}
	return n, n.rule.fits(n.kind)
}

// fitsEnum is fits for a type that brings its own values.
func (r *rule) fitsEnum() error {
	bare := *r
	bare.enum = nil
	return bare.fits(kindEnum)
}

// compileFields makes the nodes of the fields of a struct.
func (n *node) compileFields(outer []reflect.Type) error {
	for _, t := range outer {
		if t == n.typ {
			return fmt.Errorf("%v contains itself", t)
		}
	}
	outer = append(outer[:len(outer):len(outer)], n.typ)
	n.byName = make(map[string]*node)
	for i := range n.typ.NumField() {
		f := n.typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || f.Anonymous || name == "" || name == "-" {
			return fmt.Errorf("field %s: every field is exported and has a name in its json tag", f.Name)
		}
		r, err := parseRule(f.Tag.Get("aws"))
		if err != nil {
			return fmt.Errorf("field %s: tag: %w", f.Name, err)
		}
		field, err := compileType(f.Type, r, outer)
		if err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
		field.wire, field.path, field.index = name, lowerFirst(name), i
		field.compileRecord()
		if n.byName[name] != nil {
			return fmt.Errorf("field %s: %q twice", f.Name, name)
		}
		if r.required {
			n.required |= 1 << len(n.fields)
		}
		n.byName[name] = field
		n.fields = append(n.fields, field)
	}
	if len(n.fields) > 64 {
		return fmt.Errorf("more than 64 fields")
	}
	return nil
}

// lowerFirst returns the name of a member as messages and audit records write it.
func lowerFirst(name string) string {
	r, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToLower(r)) + name[size:]
}
