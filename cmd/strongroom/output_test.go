package main

import "testing"

func TestTable(t *testing.T) {
	got := table([][]string{{"KEY", "STATE", "ALIASES"}, {"k", "Enabled", ""}, {"clé", "", ""}, {"", "x", "y"}})
	want := "KEY  STATE    ALIASES\n" +
		"k    Enabled\n" +
		"clé\n" +
		"     x        y\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 密钥":        "plain é 密钥",
		"two\nlines":        "two lines",
		"\x1b]0;title\x07":  "\ufffd]0;title\ufffd",
		"a\u202egpj.exe":    "a\ufffdgpj.exe", // right-to-left override
		"not utf-8: \xff\n": "not utf-8: \ufffd ",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestIsText(t *testing.T) {
	for in, want := range map[string]bool{
		"":               true,
		"text\n\twith é": true,
		"\x1b[31m":       false,
		"\xff":           false,
		"\x00":           false,
		"\ufffd":         true, // the character itself, which is not a mistake
	} {
		if got := isText([]byte(in)); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}
