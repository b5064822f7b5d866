package policy

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Format returns the text of a key policy as AWS KMS prints it: objects with a member a line, " : " after names, lists on one line, and principals in
// their long form ("*" as {"AWS":"*"}, an account's number as the ARN of its root). Its meaning is that of text, which Parse has accepted; text that it would
// refuse is returned as it is.
func Format(text, partition string) string {
	f := formatter{in: jsontext.NewDecoder(strings.NewReader(text)), partition: partition}
	if err := f.value(0, ""); err != nil {
		return text
	}
	return f.out.String()
}

type formatter struct {
	in        *jsontext.Decoder
	out       bytes.Buffer
	partition string
}

// value copies a value that is inside of depth objects; name is that of the member that it belongs to.
func (f *formatter) value(depth int, name string) error {
	switch f.in.PeekKind() {
	case '{':
		return f.object(depth)
	case '[':
		return f.list(depth, name)
	}
	v, err := f.in.ReadValue()
	if err != nil {
		return err
	}
	if name == "AWS" && v.Kind() == '"' {
		if s := string(v[1 : len(v)-1]); isAccount(s) {
			v = jsontext.Value(`"arn:` + f.partition + `:iam::` + s + `:root"`)
		}
	}
	if (name == "Principal" || name == "NotPrincipal") && string(v) == `"*"` {
		f.out.WriteString("{" + indent(depth+1) + `"AWS" : "*"` + indent(depth) + "}")
		return nil
	}
	f.out.Write(v)
	return nil
}

func (f *formatter) object(depth int) error {
	if _, err := f.in.ReadToken(); err != nil {
		return err
	}
	f.out.WriteByte('{')
	for n := 0; f.in.PeekKind() != '}'; n++ {
		name, err := f.in.ReadToken()
		if err != nil {
			return err
		}
		if n > 0 {
			f.out.WriteByte(',')
		}
		f.out.WriteString(indent(depth + 1))
		quoted, err := jsontext.AppendQuote(nil, name.String())
		if err != nil {
			return err
		}
		text := name.String()
		f.out.Write(quoted)
		f.out.WriteString(" : ")
		if err := f.value(depth+1, text); err != nil {
			return err
		}
	}
	if _, err := f.in.ReadToken(); err != nil {
		return err
	}
	f.out.WriteString(indent(depth) + "}")
	return nil
}

func (f *formatter) list(depth int, name string) error {
	if _, err := f.in.ReadToken(); err != nil {
		return err
	}
	f.out.WriteString("[ ")
	for n := 0; f.in.PeekKind() != ']'; n++ {
		if n > 0 {
			f.out.WriteString(", ")
		}
		if err := f.value(depth, name); err != nil {
			return err
		}
	}
	if _, err := f.in.ReadToken(); err != nil {
		return err
	}
	f.out.WriteString(" ]")
	return nil
}

// indent begins a line inside of depth objects.
func indent(depth int) string { return "\n" + strings.Repeat("  ", depth) }
