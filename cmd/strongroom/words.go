package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

// words is the value of a flag that is given once for each word. The parser's own lists of strings split words at commas.
type words []string

func (w *words) Set(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	*w = append(*w, s)
	return nil
}

// String is empty: there is no default for the help to show.
func (w *words) String() string { return "" }

// wordsOf returns what the flag called name was given, in that order, nil if nothing.
func wordsOf(c *cli.Context, name string) []string {
	if w, ok := c.Generic(name).(*words); ok {
		return *w
	}
	return nil
}

// grantTokensFlag is of the commands that a grant may permit.
func grantTokensFlag() cli.Flag {
	return &cli.GenericFlag{Name: "grant-token", Usage: "`TOKEN` of a grant that permits it; again for each", Value: new(words)}
}

func grantTokens(c *cli.Context) []string { return wordsOf(c, "grant-token") }

// argumentsAndMore is arguments for a command whose last one may be given again.
func argumentsAndMore(c *cli.Context, names ...string) ([]string, error) {
	for len(names) < c.NArg() {
		names = append(names, names[len(names)-1])
	}
	return arguments(c, names...)
}
