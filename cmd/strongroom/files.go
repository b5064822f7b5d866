package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// maxPEM is how much of a file is read that holds a key or a certificate.
const maxPEM = 64 << 10

// readFile returns what is in a file, if it is no more than most bytes.
func readFile(ctx context.Context, path string, most int) ([]byte, error) {
	b, err := readBeginning(ctx, path, most)
	if err == nil && len(b) > most {
		err = fmt.Errorf("read %s: it is longer than %d bytes", printable(path), most)
	}
	return b, err
}

// readBeginning returns what is in a file, and one byte more than most if it is longer than that. It can be interrupted, as by a person who named a pipe
// that nobody writes to.
func readBeginning(ctx context.Context, path string, most int) ([]byte, error) {
	b, err := interruptibly(ctx, func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, int64(most)+1))
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", printable(path), withoutPath(err))
	}
	return b, nil
}

// readNamed is readBeginning for a command line, on which "-" is stdin.
func readNamed(c *cli.Context, name string, most int) ([]byte, error) {
	if name != "-" {
		return readBeginning(c.Context, name, most)
	}
	if isTerminal(c.App.Reader) {
		note(c, "reading from the terminal; Ctrl-D on an empty line ends it")
	}
	b, err := interruptibly(c.Context, func() ([]byte, error) { return io.ReadAll(io.LimitReader(c.App.Reader, int64(most)+1)) })
	if err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	return b, nil
}

// A newFile is a file to be made, which may not be there yet.
type newFile struct {
	path    string
	content []byte
	about   string // what it holds, for the person who asked for it
}

// checkNew refuses paths where something is already, or where no file could be made. It is asked before the server is, so that nothing is
// made that then has nowhere to go; writeNew does not rely on it.
func checkNew(paths ...string) error {
	for _, path := range paths {
		switch _, err := os.Lstat(path); {
		case err == nil:
			return existsError(path)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("write %s: %w", path, withoutPath(err))
		}
		if dir, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("write %s: directory %s: %w", path, filepath.Dir(path), withoutPath(err))
		} else if !dir.IsDir() {
			return fmt.Errorf("write %s: %s is not a directory", path, filepath.Dir(path))
		}
	}
	return nil
}

func existsError(path string) error {
	return hint(fmt.Errorf("write %s: it exists already, and nothing is ever overwritten", path), "name another --out, or move the file away")
}

// writeNew makes all of the files, readable by their owner alone, or none of them: if one fails, those before it are removed. A file that
// was there before is not touched.
func writeNew(files ...newFile) (err error) {
	var made []string
	defer func() {
		if err == nil {
			return
		}
		for _, path := range made {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	for _, f := range files {
		file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return existsError(f.path)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, withoutPath(err))
		}
		made = append(made, f.path)
		_, err = file.Write(f.content)
		if err == nil {
			err = file.Sync()
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("write %s: %w", f.path, withoutPath(err))
		}
	}
	return nil
}

// withoutPath returns the cause of an error that names a path, for a message that has named it.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// paths returns where the files are to be.
func paths(files []newFile) []string {
	var all []string
	for _, f := range files {
		all = append(all, f.path)
	}
	return all
}

// printFiles tells what was written.
func printFiles(c *cli.Context, files []newFile) error {
	var rows [][]string
	for _, f := range files {
		rows = append(rows, []string{f.path, f.about})
	}
	return printTable(c, rows)
}

// inFlag and outFlag are of the commands that read data and write data.
func inFlag() cli.Flag {
	return &cli.StringFlag{Name: "in", Usage: "read `FILE`, - for stdin", Value: "-", TakesFile: true}
}

func outFlag() cli.Flag {
	return &cli.StringFlag{Name: "out", Usage: "make `FILE`, mode 0600, which may not exist yet; - for stdout", Value: "-", TakesFile: true}
}

// outFile returns the file that --out names, empty for stdout.
func outFile(c *cli.Context) string {
	if out := c.String("out"); out != "-" {
		return out
	}
	return ""
}

// readInput returns what --in names, and one byte more than limit if it is longer than that.
func readInput(c *cli.Context, limit int) ([]byte, error) {
	in := c.String("in")
	if in == "" {
		in = "-"
	}
	return readNamed(c, in, limit)
}

// appendBase64 appends b as one line of base64.
func appendBase64(line, b []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(line, b), '\n')
}

// parseBase64 reads base64 however it is broken into lines.
func parseBase64(text []byte) ([]byte, error) {
	joined := strings.Join(strings.Fields(string(text)), "")
	return base64.StdEncoding.Strict().DecodeString(joined)
}
