package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder returns a command line with its flags before its other arguments, because the parser of flags stops at the first argument that
// is none: without this, "key delete KEY --yes" would read --yes as a second key. The order among flags, and that among the others, stays.
//
//	strongroom alias create app KEY --json -> strongroom alias create --json app KEY
//	strongroom --json key list             -> strongroom key list --json
//
// What follows "--" is never a flag. Mistakes are left for the parser to find.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	if args[len(args)-1] == completionFlag {
		// Completion is about what stands where. But a "--", which may just be the beginning of a flag, would make the parser take
		// the line for one to be done.
		return slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == "--" })
	}
	line := commandLine{path: args[:1:1], commands: app.Commands, flags: app.Flags}
	for rest := args[1:]; len(rest) > 0; {
		rest = line.take(rest)
	}
	return line.inOrder()
}

// A commandLine is one sorted by what its words are.
type commandLine struct {
	path       []string       // the program and the names of commands
	commands   []*cli.Command // which of them may come next
	flags      []cli.Flag     // of the command so far
	given      []string       // flags, each followed by its value
	incomplete bool           // the last flag in given lacks its value
	help       bool
	end        bool // "--" was there
	others     []string
}

// take puts the first word, and the value that belongs to it, in its place and returns the words that follow.
func (l *commandLine) take(words []string) []string {
	word, rest := words[0], words[1:]
	switch {
	case l.end:
		l.others = append(l.others, word)
	case word == "--":
		l.end = true
	case len(word) > 1 && word[0] == '-':
		name, _, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		l.help = l.help || slices.Contains(cli.HelpFlag.Names(), name)
		l.given = append(l.given, word)
		if joined || !takesValue(l.flags, l.commands, name) {
			return rest
		}
		if len(rest) == 0 {
			l.incomplete = true
			return rest
		}
		l.given = append(l.given, rest[0])
		return rest[1:]
	default:
		if cmd := findCommand(l.commands, word); cmd != nil && len(l.others) == 0 {
			l.path = append(l.path, word)
			l.commands, l.flags = cmd.Subcommands, cmd.Flags
			return rest
		}
		l.others = append(l.others, word)
	}
	return rest
}

func (l *commandLine) inOrder() []string {
	line := slices.Concat(l.path, l.given)
	switch {
	case l.incomplete:
		// Nothing may stand where the value would: the parser shall say that it is missing.
		return line
	case l.help:
		// Help is about the command; an argument would be taken for the name of one.
		return line
	case l.end:
		line = append(line, "--")
	}
	return append(line, l.others...)
}

// findCommand returns the command that is called name, or nil.
func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, cmd := range commands {
		if cmd.HasName(name) {
			return cmd
		}
	}
	return nil
}

// takesValue reports whether the flag called name is followed by a value. A flag may come before the command that defines it, so the
// commands that may yet come are asked too; one name takes a value everywhere or nowhere, which a test holds.
func takesValue(flags []cli.Flag, commands []*cli.Command, name string) bool {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			d, ok := f.(cli.DocGenerationFlag)
			return ok && d.TakesValue()
		}
	}
	for _, cmd := range commands {
		if takesValue(cmd.Flags, cmd.Subcommands, name) {
			return true
		}
	}
	return false
}
