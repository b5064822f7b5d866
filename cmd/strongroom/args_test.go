package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestReorder(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", ""},
		{"key list", "key list"},
		{"key delete KEY --yes", "key delete --yes KEY"},
		{"key delete KEY --days 7 --yes", "key delete --days 7 --yes KEY"},
		{"key delete KEY --days=7 -- --yes", "key delete --days=7 -- KEY --yes"},
		{"alias create app KEY --json", "alias create --json app KEY"},
		{"alias create app --json KEY", "alias create --json app KEY"},
		{"alias create -- --odd KEY", "alias create -- --odd KEY"},
		{"--json key list", "key list --json"},
		{"--region r key --json list", "key list --region r --json"},
		{"key --endpoint list list", "key list --endpoint list"},
		{"encrypt --in - --key k", "encrypt --in - --key k"},
		{"encrypt - --key k", "encrypt --key k -"},
		{"key describe list", "key describe list"},
		{"key policy put app - --json", "key policy put --json app -"},
		{"key tag app --json a=b c=d", "key tag --json app a=b c=d"},
		{"grant retire --token -t", "grant retire --token -t"},
		{"key describe KEY --unknown x", "key describe --unknown KEY x"},
		{"key describe KEY --help", "key describe --help"},
		{"key describe KEY --region", "key describe --region"}, // not: --region KEY
		{"--help", "--help"},
		{"help key create", "help key create"},
		{"nonsense key --json", "--json nonsense key"},
		{"key delete --yes KEY -- --generate-bash-completion", "key delete --yes KEY --generate-bash-completion"}, // must not be done
	} {
		in := append([]string{"strongroom"}, strings.Fields(test.in)...)
		before := slices.Clone(in)
		got := reorder(newApp(nil, io.Discard, io.Discard), in)
		if want := append([]string{"strongroom"}, strings.Fields(test.want)...); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", test.in, got[1:], want[1:])
		}
		if !slices.Equal(in, before) {
			t.Errorf("%q: the arguments themselves were changed to %q", test.in, in)
		}
	}
}

// A flag may stand before the command that defines it, so its name alone must say whether a value follows.
func TestFlagNamesTakeValuesEverywhereOrNowhere(t *testing.T) {
	takes := make(map[string]bool)
	everyCommand(t, func(path string, cmd *cli.Command) {
		for _, f := range cmd.Flags {
			for _, name := range f.Names() {
				now := f.(cli.DocGenerationFlag).TakesValue()
				if before, ok := takes[name]; ok && before != now {
					t.Errorf("%s: --%s takes a value in one command and none in another", path, name)
				}
				takes[name] = now
			}
		}
	})
}

// everyCommand calls f for each command that does something, by its full name.
func everyCommand(t *testing.T, f func(path string, cmd *cli.Command)) {
	t.Helper()
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, cmd := range commands {
			if len(cmd.Subcommands) > 0 {
				walk(path+cmd.Name+" ", cmd.Subcommands)
			} else {
				f(path+cmd.Name, cmd)
			}
		}
	}
	walk("", newApp(nil, io.Discard, io.Discard).Commands)
}

// isClient reports whether cmd was completed by clientCommand.
func isClient(cmd *cli.Command) bool {
	return slices.ContainsFunc(cmd.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), "endpoint") })
}

func TestHelpOfEveryClientCommand(t *testing.T) {
	clients := 0
	everyCommand(t, func(path string, cmd *cli.Command) {
		if !isClient(cmd) {
			return
		}
		clients++
		out := command(t, append(strings.Fields(path), "some", "arguments", "--help")...).want(t, exitOK).stdout
		for _, text := range []string{"strongroom " + path + " - ", "Example:  ", "strongroom " + path, "--json", "--endpoint URL", "--help", "Exit codes: 0"} {
			if !strings.Contains(out, text) {
				t.Errorf("%s: the help lacks %q", path, text)
			}
		}
		for line := range strings.Lines(out) {
			if n := len(strings.TrimRight(line, "\n")); n > 140 {
				t.Errorf("%s: a line of help has %d characters: %s", path, n, line)
			}
		}
	})
	if clients != 29 {
		t.Errorf("%d commands talk to a server, want 29", clients)
	}
}

// The examples must be understood: every flag of theirs exists, and arguments are as many as are wanted.
func TestExamplesAreUnderstood(t *testing.T) {
	awsEnvironment(t) // without an endpoint: what gets so far was read well
	everyCommand(t, func(path string, cmd *cli.Command) {
		if !isClient(cmd) {
			return
		}
		_, rest, _ := strings.Cut(cmd.Description, "Example:")
		examples, _, _ := strings.Cut(rest, "\n\n")
		for line := range strings.Lines(examples) {
			_, words, found := strings.Cut(line, "strongroom ")
			if !found {
				t.Errorf("%s: example %q", path, line)
				continue
			}
			words, _, _ = strings.Cut(words, "|")
			words, _, _ = strings.Cut(words, ">")
			words = strings.TrimRight(strings.TrimSpace(words), ")")
			words = strings.ReplaceAll(words, `"wraps the data keys of app"`, "text")
			t.Chdir(t.TempDir())
			command(t, strings.Fields(words)...).want(t, exitMisuse, "no server is named")
		}
	})
}

func TestWrongNumberOfArguments(t *testing.T) {
	awsEnvironment(t)
	for args, want := range map[string]string{
		"key describe":        "KEY is missing",
		"key describe a b":    `"b" is one argument too many`,
		"alias create a":      "KEY is missing",
		"alias create":        "NAME is missing",
		"key list a":          `"a" is one argument too many`,
		"keypair --spec SM2":  "--key is missing",
		"encrypt":             "--key is missing",
		"datakey":             "--key is missing",
		"keypair --key k":     "--spec is missing",
		"key":                 "",
		"completion bash now": `"now" is one argument too many`,
		"key policy put a":    "FILE is missing",
		"key tag a":           "NAME=VALUE is missing",
		"grant revoke a":      "GRANTID is missing",
	} {
		code := exitMisuse
		if want == "" {
			code = exitOK
		}
		command(t, strings.Fields(args)...).want(t, code, want)
	}
	command(t, "key", "describe", "").want(t, exitMisuse, "KEY is empty")
}

func TestPairs(t *testing.T) {
	for _, test := range []struct {
		in   string // separated by spaces
		want string // name=value, sorted, or an error
	}{
		{"a=b", "a=b"},
		{"a=b,c=d", "a=b,c=d"}, // one value
		{"a=b=c d=", "a=b=c d="},
		{`{"a=b":"c","d":"e"} f=g`, "a=b=c d=e f=g"},
		{"a=b a=c", `error: "a" is given twice`},
		{`{"a":1}`, "error: is not a JSON object of strings"},
		{"a", "error: is not NAME=VALUE"},
		{"=a", "error: is not NAME=VALUE"},
	} {
		p := pairs{}
		var err error
		for _, s := range strings.Fields(test.in) {
			if err == nil {
				err = p.Set(s)
			}
		}
		var got []string
		for name, value := range p {
			got = append(got, name+"="+value)
		}
		slices.Sort(got)
		text := strings.Join(got, " ")
		if err != nil {
			text = "error: " + err.Error()
		}
		if text != test.want {
			t.Errorf("%s: got %s, want %s", test.in, text, test.want)
		}
	}
}
