package main

import (
	"slices"
	"strings"
	"testing"
)

func TestCompletionOfAttest(t *testing.T) {
	for line, want := range map[string]string{
		"make --kind":      "enclave nitrotpm",
		"make --bits":      "2048 3072 4096",
		"make --case":      strings.Join(caseNames(), " "),
		"make --list":      "--list-cases",
		"make --d":         "--dev --debug",
		"inspect --at":     "document",
		"inspect --a":      "--at --anchor --account",
		"open --key k --o": "--out",
	} {
		words := append(strings.Fields("strongroom attest "+line), completionFlag)
		cmd := findCommand(attestCommand().Subcommands, words[2])
		if got := candidates(cmd, words); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	for _, cmd := range newApp(nil, nil, nil).Commands {
		if !slices.Contains([]string{"decrypt", "datakey", "keypair"}, cmd.Name) {
			continue
		}
		if got := candidates(cmd, []string{"strongroom", cmd.Name, "--rec", completionFlag}); !slices.Equal(got, []string{"--recipient"}) {
			t.Errorf("%s: %q", cmd.Name, got)
		}
	}
}
