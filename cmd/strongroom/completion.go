package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"strongroom/keyspec"
	"strongroom/kms/attest"
)

// completionFlag ends a command line that a shell wants completed rather than done (urfave/cli, EnableBashCompletion). The word that is
// being typed stands before it if it begins with a dash, and is left out otherwise: the shell picks what fits.
const completionFlag = "--generate-bash-completion"

func completionCommand() *cli.Command {
	shell := func(name, script, setup string) *cli.Command {
		return &cli.Command{
			Name:            name,
			Usage:           "print the script for " + name,
			Description:     "Example:  " + setup,
			HideHelpCommand: true,
			OnUsageError:    onUsageError,
			Action: func(c *cli.Context) error {
				if _, err := arguments(c); err != nil {
					return err
				}
				return printBytes(c, []byte(script))
			},
		}
	}
	return &cli.Command{
		Name:  "completion",
		Usage: "make a shell complete commands, flags and their values",
		Description: `Prints a script for the shell to read. The script asks strongroom itself what fits, and never runs what was typed.

Example:  source <(strongroom completion bash)`,
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			shell("bash", bashCompletion, `source <(strongroom completion bash)       in ~/.bashrc`),
			shell("zsh", zshCompletion, `source <(strongroom completion zsh)        in ~/.zshrc, after compinit`),
			shell("fish", fishCompletion, `strongroom completion fish > ~/.config/fish/completions/strongroom.fish`),
		},
	}
}

// In all three scripts, what was typed is passed on as words and never evaluated: to complete $(rm …) must not run it. Bash splits words at
// "=" too, so a value after "--spec=" follows a word "=".

const bashCompletion = `# completion of strongroom for bash
_strongroom() {
    local cur=${COMP_WORDS[COMP_CWORD]} IFS=$'\n'
    local words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    if [[ $cur == -* ]]; then
        words+=("$cur")
    elif [[ $cur == "=" ]]; then
        words+=("$cur") cur=
    fi
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]/#\~/$HOME}" "${words[@]}" ` + completionFlag + ` 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _strongroom strongroom
`

const zshCompletion = `#compdef strongroom
# completion of strongroom for zsh
_strongroom() {
    local -a words_before candidates
    local cur=${words[CURRENT]}
    words_before=("${(@)words[2,CURRENT-1]}")
    [[ $cur == -* ]] && words_before+=("$cur")
    candidates=("${(@f)$(${words[1]/#\~/$HOME} "${words_before[@]}" ` + completionFlag + ` 2>/dev/null)}")
    candidates=(${candidates:#})
    if (( ${#candidates} )); then
        compadd -- "${candidates[@]}"
    else
        _files
    fi
}
compdef _strongroom strongroom
`

const fishCompletion = `# completion of strongroom for fish
function __strongroom_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    string match -q -- '-*' "$cur"; and set -a words "$cur"
    set -l candidates ($program $words ` + completionFlag + ` 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else
        __fish_complete_path "$cur"
    end
end
complete -c strongroom -f -a '(__strongroom_complete)'
`

// flagValues are the values of flags that have only a few, by command and flag.
var flagValues = map[string][]string{
	"keypair --spec":     keyspec.Spec(0).Values(),
	"keypair --format":   {"pem", "der"},
	"datakey --spec":     {"AES_256", "AES_128"},
	"create --operation": grantOperations,
	"show --outcome":     outcomes,
	"inspect --at":       {"document"},
	"make --kind":        {string(attest.Enclave), string(attest.NitroTPM)},
	"make --bits":        {"2048", "3072", "4096"},
	"make --case":        caseNames(),
}

// completeCommand completes a flag of cmd, or the value of one. It cannot know the words that are arguments, so shells offer files for them.
func completeCommand(cmd *cli.Command) cli.BashCompleteFunc {
	return func(c *cli.Context) {
		for _, candidate := range candidates(cmd, os.Args) {
			fmt.Fprintln(c.App.Writer, candidate)
		}
	}
}

// candidates returns what may stand at the end of a command line for cmd that ends in completionFlag.
func candidates(cmd *cli.Command, line []string) []string {
	line = line[:len(line)-1]
	last := line[len(line)-1]
	if slices.Contains(line[:len(line)-1], "--") {
		return nil // only arguments follow
	}
	if last == "=" { // bash
		last = line[len(line)-2]
	}
	name, _, joined := strings.Cut(last, "=")
	if name, ok := strings.CutPrefix(name, "--"); ok {
		values := flagValues[cmd.Name+" --"+name]
		switch {
		case joined && values != nil: // zsh and fish
			var flags []string
			for _, v := range values {
				flags = append(flags, "--"+name+"="+v)
			}
			return flags
		case takesValue(cmd.Flags, nil, name):
			return values
		}
	}
	if !strings.HasPrefix(last, "-") {
		return nil
	}
	var names []string
	for _, f := range cmd.Flags {
		for _, n := range f.Names() {
			flag := "--" + n
			if len(n) > 1 && strings.HasPrefix(flag, last) && (flag == last || !slices.Contains(line, flag)) {
				names = append(names, flag)
			}
		}
	}
	return names
}
