package policy

import "reflect"

// Size returns how many bytes of memory d takes, more or less: up to some twenty times the length of its text.
func (d *Document) Size() int {
	if d == nil {
		return 0
	}
	return size(reflect.ValueOf(d))
}

// size returns what v leads to, without v itself. What is shared counts each time: there is little.
func size(v reflect.Value) int {
	n := 0
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			n = int(v.Elem().Type().Size()) + size(v.Elem())
		}
	case reflect.String:
		n = v.Len()
	case reflect.Slice:
		n = v.Cap()*int(v.Type().Elem().Size()) + elements(v)
	case reflect.Array:
		n = elements(v)
	case reflect.Struct:
		for _, f := range v.Fields() {
			n += size(f)
		}
	case reflect.Map:
		for i := v.MapRange(); i.Next(); {
			n += int(v.Type().Key().Size()+v.Type().Elem().Size()) + size(i.Key()) + size(i.Value())
		}
	}
	return n
}

func elements(v reflect.Value) int {
	n := 0
	switch v.Type().Elem().Kind() {
	case reflect.Pointer, reflect.Interface, reflect.String, reflect.Slice, reflect.Array, reflect.Struct, reflect.Map:
		for i := range v.Len() {
			n += size(v.Index(i))
		}
	}
	return n
}
