// Strongroom is a key management service for people who own a hardware security module. It speaks the AWS KMS protocol; the keys that wrap
// everything live in the HSM and never leave it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"strongroom/hsm/pkcs11"
	"strongroom/hsm/worker"
	"strongroom/keyspec/search"
	"strongroom/kms"
)

// Exit codes, the same for every command. They are part of what scripts may rely on.
const (
	exitOK     = 0
	exitFailed = 1 // the command was understood and did not succeed
	exitMisuse = 2 // the command line or the configuration file was wrong; nothing was done
	exitPIN    = 3 // the token refused the PIN: a person has to look before it is tried again, or the token may lock
)

func main() {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "dev") {
		undisturbed()
	}
	runtime.UnlockOSThread()
	if len(os.Args) == 2 && os.Args[1] == worker.Argument {
		os.Exit(worker.Main())
	}
	if len(os.Args) == 3 && os.Args[1] == search.Argument {
		os.Exit(search.Main(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it does what args say and returns the exit code. Data goes to stdout, all else to stderr.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	return report(stderr, app.RunContext(ctx, reorder(app, args)))
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:  "strongroom",
		Usage: "an AWS KMS of your own, with its keys in your HSM",
		Description: `To see it work:        strongroom demo
To try it:             strongroom dev --dir ./rig     then, in another terminal:  . ./rig/env
To run it:             strongroom init --config FILE  then                        strongroom serve --config FILE
If something is wrong: strongroom doctor --config FILE

Exit codes: 0 done, 1 failed, 2 used wrongly, 3 the token refused the PIN.`,
		Version:              version(),
		HideVersion:          true, // there is a command for it, which knows more
		EnableBashCompletion: true,
		Reader:               stdin,
		Writer:               stdout,
		ErrWriter:            stderr,
		ExitErrHandler:       func(*cli.Context, error) {}, // report does it
		OnUsageError:         onUsageError,
		Action:               helpOnly,
		Commands: []*cli.Command{
			demoCommand(),
			devCommand(),
			initCommand(),
			serveCommand(),
			migrateCommand(),
			hsmCommand(),
			backupCommand(),
			restoreCommand(),
			accountCommand(),
			principalCommand(kms.User),
			principalCommand(kms.Role),
			policyCommand(),
			accessKeyCommand(),
			sessionCommand(),
			explainCommand(),
			auditCommand(),
			doctorCommand(),
			keyCommand(),
			aliasCommand(),
			grantCommand(),
			keypairCommand(),
			datakeyCommand(),
			encryptCommand(),
			decryptCommand(),
			attestCommand(),
			completionCommand(),
			versionCommand(),
		},
	}
}

// helpOnly is the action of a command that is only a place for others.
func helpOnly(c *cli.Context) error {
	if c.Args().Present() {
		return misuse("there is no command %q", strings.Join(append(strings.Fields(c.Command.FullName()), c.Args().First()), " "))
	}
	return cli.ShowSubcommandHelp(c)
}

// noArguments refuses arguments that are no flags, for commands that take none.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return misuse("%s takes no argument %q", c.Command.Name, c.Args().First())
	}
	return nil
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return &misuseError{err}
}

// A misuseError says that a command was used wrongly and did nothing.
type misuseError struct{ err error }

func (e *misuseError) Error() string { return e.err.Error() }
func (e *misuseError) Unwrap() error { return e.err }

func misuse(format string, args ...any) error {
	return &misuseError{fmt.Errorf(format, args...)}
}

// A hintedError is an error with what a person can do about it.
type hintedError struct {
	err   error
	hints []string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// hint adds to an error what a person can do about it, each hint a sentence or a command.
func hint(err error, hints ...string) error {
	return &hintedError{err, hints}
}

// errNo is the error of a command that was asked a question and has answered it with no.
var errNo = errors.New("no")

// report tells a person of an error and returns the exit code that goes with it.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	if err == errNo {
		return exitFailed
	}
	fmt.Fprintf(w, "strongroom: %v\n", err)
	for e := err; e != nil; e = errors.Unwrap(e) {
		if h, ok := e.(*hintedError); ok {
			for _, line := range h.hints {
				fmt.Fprintf(w, "hint: %s\n", line)
			}
		}
	}
	var m *misuseError
	if errors.As(err, &m) {
		fmt.Fprintln(w, "hint: strongroom help")
		return exitMisuse
	}
	if errors.Is(err, pkcs11.ErrPIN) {
		return exitPIN
	}
	return exitFailed
}
