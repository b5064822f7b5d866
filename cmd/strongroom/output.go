package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// Rules for what is printed where:
//
//   - stdout has the data that was asked for and nothing else; all that is said about it goes to stderr.
//   - People get aligned columns and UTC times; programs say --json.
//   - Text that came from elsewhere is shown so that it cannot steer a terminal.
//   - Binary never goes to a terminal.

// printJSON writes v on one line. What it was made in is wiped, because v may hold a key.
func printJSON(c *cli.Context, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	defer clear(b.Bytes())
	return printBytes(c, b.Bytes())
}

// printBytes writes b as it is.
func printBytes(c *cli.Context, b []byte) error {
	if _, err := c.App.Writer.Write(b); err != nil {
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}

// printTable writes rows in columns, each as wide as its longest cell, without spaces at the ends of lines. Cells are made printable.
func printTable(c *cli.Context, rows [][]string) error {
	return printBytes(c, []byte(table(rows)))
}

func table(rows [][]string) string {
	var widths []int
	shown := make([][]string, len(rows))
	for r, row := range rows {
		for i, cell := range row {
			cell = printable(cell)
			shown[r] = append(shown[r], cell)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var all strings.Builder
	for _, row := range shown {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		all.WriteString(strings.TrimRight(line.String(), " "))
		all.WriteByte('\n')
	}
	return all.String()
}

// note tells a person something beside the data.
func note(c *cli.Context, format string, args ...any) {
	fmt.Fprintf(c.App.ErrWriter, format+"\n", args...)
}

// when writes a time for people.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// utc returns the time at t in UTC, nil for nil, as JSON shall show it.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// printable returns s with every character that a terminal might obey, or that would break a line, made visible.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		if unicode.IsSpace(r) {
			return ' '
		}
		return unicode.ReplacementChar
	}, s)
}

// isText reports whether b can be shown on a terminal as it is.
func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			return false
		}
		b = b[n:]
	}
	return true
}

// isTerminal reports whether a person is at the other end of a reader or writer, which may answer that itself.
func isTerminal(v any) bool {
	switch v := v.(type) {
	case interface{ IsTerminal() bool }:
		return v.IsTerminal()
	case *os.File:
		return term.IsTerminal(int(v.Fd()))
	}
	return false
}

// readLine reads a line that a person types, without its end. It returns early when ctx ends: a signal asks for that, and a read of a
// terminal cannot be interrupted. The reader is then left to a goroutine that ends with the program.
func readLine(c *cli.Context) (string, error) {
	b, err := interruptibly(c.Context, func() ([]byte, error) {
		var line []byte
		var one [1]byte // no more than the line may be taken
		for {
			n, err := c.App.Reader.Read(one[:])
			if n == 1 && one[0] == '\n' || err == io.EOF {
				return line, nil
			}
			if err != nil {
				return nil, err
			}
			line = append(line, one[:n]...)
		}
	})
	return strings.TrimRight(string(b), "\r"), err
}

// interruptibly returns what read returns, or an error as soon as the command is interrupted.
func interruptibly(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := read()
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		return r.b, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("interrupted")
	}
}
