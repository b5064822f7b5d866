package awsapi

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestBadTags: a mistake in a request type does not wait for a request.
func TestBadTags(t *testing.T) {
	type self struct {
		Next []struct {
			Deep any `json:"Deep"`
		} `json:"Next"`
	}
	text := reflect.TypeFor[string]()
	// made is for the structs that go vet would not let through.
	made := func(fields ...reflect.StructField) any {
		return reflect.New(reflect.StructOf(fields)).Elem().Interface()
	}
	tests := []struct {
		request any
		want    string
	}{
		{struct {
			A string `json:"A" aws:"requird"`
		}{}, "wrong form"},
		{struct {
			A string `json:"A" aws:"size=1"`
		}{}, "no such rule"},
		{struct {
			A string `json:"A" aws:"required=yes"`
		}{}, "wrong form"},
		{struct {
			A string `json:"A" aws:"min"`
		}{}, "wrong form"},
		{struct {
			A string `json:"A" aws:"min=x"`
		}{}, "invalid syntax"},
		{struct {
			A string `json:"A" aws:"min=2,max=1"`
		}{}, "min is more than max"},
		{struct {
			A string `json:"A" aws:"min=1,min=2"`
		}{}, "twice"},
		{struct {
			A string `json:"A" aws:"required, min=1"`
		}{}, "no such rule"},
		{struct {
			A string `json:"A" aws:"pattern=nobody"`
		}{}, "no such pattern"},
		{struct {
			A string `json:"A" aws:"enum=A||B"`
		}{}, "empty value"},
		{struct {
			A bool `json:"A" aws:"min=1"`
		}{}, "mean nothing"},
		{struct {
			A int32 `json:"A" aws:"enum=A"`
		}{}, "enum is for strings"},
		{struct {
			A []byte `json:"A" aws:"pattern=alias"`
		}{}, "pattern is for strings"},
		{struct {
			A string `json:"A" aws:"item.min=1"`
		}{}, "item is for lists"},
		{struct {
			A []string `json:"A" aws:"item.required"`
		}{}, "an element"},
		{struct {
			A []string `json:"A" aws:"item.item.min=1"`
		}{}, "no such rule"},
		{made(reflect.StructField{Name: "A", Type: text, Tag: `json:"A"`}, reflect.StructField{Name: "B", Type: text, Tag: `json:"A"`}), "twice"},
		{struct{ A string }{}, "has a name"},
		{made(reflect.StructField{Name: "a", PkgPath: "p", Type: text, Tag: `json:"A"`}), "exported"},
		{struct {
			A any `json:"A"`
		}{}, "not supported"},
		{struct {
			A int `json:"A"`
		}{}, "not supported"},
		{struct {
			A map[string]int `json:"A"`
		}{}, "not supported"},
		{struct {
			A [][]byte `json:"A"`
		}{}, "not supported"},
		{struct {
			A *[]byte `json:"A"`
		}{}, "no more than a nil one"},
		{self{}, "not supported"},
		{recursive{}, "contains itself"},
		{"", "a request is a struct"},
	}
	for _, tt := range tests {
		func() {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.Contains(p, tt.want) {
					t.Errorf("%T: got %q, want %q", tt.request, p, tt.want)
				}
			}()
			compile(reflect.TypeOf(tt.request))
		}()
	}
}

type recursive struct {
	Again []recursive `json:"Again"`
}

func TestPatterns(t *testing.T) {
	tests := []struct{ name, match, not string }{
		{"alias", "alias/a-b_c:D9", "a b"},
		{"marker", "\u00ff ", "\t"},
		{"name", "a/b", "a.b"},
		{"policy", "{\r\n\t\u00ff}", "\u0100"},
		{"policyname", "default", "a-b"},
		{"principal", "arn:aws:iam::111122223333:role/x+=,.@-", "a b"},
	}
	for _, tt := range tests {
		p := patterns[tt.name]
		if p == nil || !p.match(tt.match) || p.match(tt.not) || p.match(tt.not+tt.match) || p.match(tt.match+"\u2028\n\u0100") {
			t.Errorf("%s: %+v", tt.name, p)
		}
	}
	if len(tests) != len(patterns) {
		t.Errorf("%d patterns, %d tested", len(patterns), len(tests))
	}
}

// TestOperationsCompile would not be reached with a bad tag in package kms; it shows that every plan is there.
func TestOperationsCompile(t *testing.T) {
	name := regexp.MustCompile(`^[A-Z]\w*$`)
	for operation, o := range operations {
		if o.run == nil {
			t.Errorf("%s: nothing to run", operation)
		}
		if o.plan == nil {
			continue
		}
		if want := operation + "Request"; o.plan.typ.Name() != want {
			t.Errorf("%s takes a %s, want %s", operation, o.plan.typ.Name(), want)
		}
		for _, f := range o.plan.fields {
			if !name.MatchString(f.wire) {
				t.Errorf("%s: member %q", operation, f.wire)
			}
		}
	}
}
