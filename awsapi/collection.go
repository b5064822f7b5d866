package awsapi

import (
	"reflect"

	"github.com/go-json-experiment/json/jsontext"
)

// listOf reads a list of strings, enumeration values or structures. A structure's faults are told by member; those of a plain element
// are told once, for the list as a whole.
func (d *decoder) listOf(n *node, v reflect.Value) error {
	if _, err := d.json.ReadToken(); err != nil {
		return syntax(err)
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	var shown []byte // the list as sent, as far as a message would show it
	var bad violations
	size := 0
	for ; ; size++ {
		k := d.json.PeekKind()
		if k == jsontext.KindEndArray {
			break
		}
		if size == v.Cap() {
			v.Grow(size)
		}
		v.SetLen(size + 1)
		d.path = append(d.path, step{index: size + 1})
		broken, err := d.element(n.item, v.Index(size), k, &shown)
		if err != nil {
			return err
		}
		d.path = d.path[:len(d.path)-1]
		bad |= broken
	}
	if _, err := d.json.ReadToken(); err != nil {
		return syntax(err)
	}
	if bad != 0 {
		d.refuseItems(n, "Member", &n.item.rule, bad, "["+string(shown)+"]")
	}
	if bad := n.rule.checkSize(int64(size)); bad != 0 {
		d.refuse(n, bad, "["+string(shown)+"]")
	}
	return nil
}

// element reads one element of a list into v and returns the rules that it breaks, unless it is a structure, whose faults are noted
// one by one.
func (d *decoder) element(n *node, v reflect.Value, k jsontext.Kind, shown *[]byte) (violations, error) {
	if k == jsontext.KindNull {
		if _, err := d.json.ReadToken(); err != nil {
			return 0, syntax(err)
		}
		if n.kind == kindStruct {
			d.missing(n)
			return 0, nil
		}
		*shown = appendShown(*shown, []byte("null"))
		return isNull, nil
	}
	if err := d.expect(n.kind, k); err != nil {
		return 0, err
	}
	if n.kind == kindStruct {
		return 0, d.object(n, v)
	}
	text, err := d.text()
	if err != nil {
		return 0, err
	}
	*shown = appendShown(*shown, text)
	return n.readText(text, v), nil
}

// pairs reads a map of strings.
func (d *decoder) pairs(n *node, v reflect.Value) error {
	if _, err := d.json.ReadToken(); err != nil {
		return syntax(err)
	}
	m := make(map[string]string)
	var bad violations
	for d.json.PeekKind() != jsontext.KindEndObject {
		text, err := d.text()
		if err != nil {
			return err
		}
		name := string(text)
		switch k := d.json.PeekKind(); k {
		case jsontext.KindNull:
			// To drop the pair would be to bind the ciphertext to another context than the caller wrote.
			if _, err := d.json.ReadToken(); err != nil {
				return syntax(err)
			}
			m[name] = "null"
			bad |= isNull
		case jsontext.KindString:
			text, err := d.text()
			if err != nil {
				return err
			}
			m[name] = string(text)
			if n.rule.item != nil {
				bad |= n.rule.item.checkText(m[name])
			}
		default:
			return d.expect(kindString, k)
		}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return syntax(err)
	}
	*v.Addr().Interface().(*map[string]string) = m
	if bad != 0 {
		d.refuseItems(n, "Map value", n.rule.item, bad, mapText(m))
	}
	if bad := n.rule.checkSize(int64(len(m))); bad != 0 {
		d.refuse(n, bad, mapText(m))
	}
	return nil
}
