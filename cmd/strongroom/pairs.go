package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// pairs is the value of a flag that is given once for each name=value. The parser's own lists of strings are no use here: they split values
// at commas, and so would silently encrypt under another context than the one that was written.
type pairs map[string]string

// Set adds name=value, or every member of a JSON object, which can also say names with "=" in them.
func (p pairs) Set(s string) error {
	if strings.HasPrefix(s, "{") {
		var more map[string]string
		if err := json.Unmarshal([]byte(s), &more); err != nil {
			return errors.New("is not a JSON object of strings")
		}
		for name, value := range more {
			if err := p.add(name, value); err != nil {
				return err
			}
		}
		return nil
	}
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return errors.New("is not NAME=VALUE")
	}
	return p.add(name, value)
}

func (p pairs) add(name, value string) error {
	if _, ok := p[name]; ok {
		return fmt.Errorf("%q is given twice", name)
	}
	p[name] = value
	return nil
}

// String is empty: there is no default for the help to show.
func (p pairs) String() string { return "" }

// pairsOf returns what the flag called name was given, nil if nothing.
func pairsOf(c *cli.Context, name string) map[string]string {
	p, ok := c.Generic(name).(pairs)
	if !ok || len(p) == 0 {
		return nil
	}
	return p
}

func contextFlag() cli.Flag {
	return &cli.GenericFlag{
		Name:  "context",
		Usage: "`NAME=VALUE` of the encryption context, not secret; again for each pair, or one JSON object",
		Value: pairs{},
	}
}
