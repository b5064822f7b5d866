package main

import (
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// isAdmin reports whether cmd was completed by adminCommand.
func isAdmin(cmd *cli.Command) bool {
	return strings.Contains(cmd.Description, "on the server's host: it works")
}

func TestHelpOfEveryAdminCommand(t *testing.T) {
	everyCommand(t, func(path string, cmd *cli.Command) {
		if isClient(cmd) || !cmd.HideHelpCommand || strings.HasPrefix(path, "completion") {
			return
		}
		out := command(t, append(strings.Fields(path), "some", "arguments", "--help")...).want(t, exitOK).stdout
		for _, text := range []string{"strongroom " + path + " - ", "Example:  strongroom " + path, "--json", "--help", "Exit codes: 0"} {
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
}

// The examples of the administrator's commands are understood, up to the deployment, which is not there.
func TestAdminExamplesAreUnderstood(t *testing.T) {
	t.Setenv(configVariable, "")
	t.Chdir(t.TempDir())
	everyCommand(t, func(path string, cmd *cli.Command) {
		if !isAdmin(cmd) {
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
			words, _, _ = strings.Cut(words, ">")
			words = strings.ReplaceAll(words, "/etc/strongroom/", "/nowhere/")
			want := "which deployment?"
			if strings.Contains(words, "--config") {
				want = "/nowhere/strongroom.toml: no such file"
			}
			command(t, strings.Fields(words)...).want(t, exitMisuse, want)
		}
	})
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"2026-06-30T10:00:00Z":      "2026-06-30T10:00:00Z",
		"2026-06-30T10:00:00+02:00": "2026-06-30T08:00:00Z",
		"2026-06-30 10:00:00":       "2026-06-30T10:00:00Z",
		"2026-06-30 10:00:00 UTC":   "2026-06-30T10:00:00Z",
		"2026-06-30 10:00":          "2026-06-30T10:00:00Z",
		"2026-06-30":                "2026-06-30T00:00:00Z",
		"90m":                       "2026-07-01T10:30:00Z",
		"1h30m":                     "2026-07-01T10:30:00Z",
		"7d":                        "2026-06-24T12:00:00Z",
		"0s":                        "2026-07-01T12:00:00Z",
		"-1h":                       "",
		"1d1h":                      "",
		"-1d":                       "",
		"d":                         "",
		"noon":                      "",
		"2026-06-31":                "",
		"2026-06-30 10:00:00 XYZ":   "", // not known how far from UTC it is
	} {
		got := ""
		if at, err := parseMoment(in, now); err == nil {
			got = at.UTC().Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestConditions(t *testing.T) {
	v := conditions{}
	for in, ok := range map[string]bool{
		"DataKeyPairSpec=RSA_2048":         true,
		"kms:EncryptionContext:app=a=b":    true,
		"aws:PrincipalTag/team=":           true,
		"kms:ResourceAliases=alias/a":      true,
		"KMS:resourcealiases=alias/b":      true,
		"kms:DataKeyPairSpecs=RSA_2048":    false,
		"aws:Nonsense=1":                   false,
		"kms:ViaService":                   false,
		"=x":                               false,
		"EncryptionContext:app=understood": true,
	} {
		if err := v.Set(in); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
	if got := v["kms:DataKeyPairSpec"]; len(got) != 1 || got[0] != "RSA_2048" {
		t.Errorf("kms:DataKeyPairSpec is %q", got)
	}
	if got := v["kms:EncryptionContext:app"]; len(got) != 2 {
		t.Errorf("kms:EncryptionContext:app is %q, want both", got)
	}
}

func TestSessionName(t *testing.T) {
	for in, want := range map[string]string{
		"alice":                  "alice",
		"root (sudo by alice)":   "root--sudo-by-alice-",
		"DOMAIN\\älice":          "DOMAIN--lice",
		strings.Repeat("x", 100): strings.Repeat("x", 64),
	} {
		if got := sessionName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
