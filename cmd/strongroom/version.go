package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// releaseVersion is the version of this program.
const releaseVersion = "0.1.0"

// version returns the version with the revision it was built from, where that is known.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return releaseVersion
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return releaseVersion + "+" + s.Value[:12]
		}
	}
	return releaseVersion
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:         "version",
		OnUsageError: onUsageError,
		Usage:        "print the version",
		Flags:        []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Bool("json") {
				return json.NewEncoder(c.App.Writer).Encode(map[string]string{
					"version": version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(c.App.Writer, "strongroom %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// jsonFlag is the flag of every command that prints something a program might read.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON"}
}
