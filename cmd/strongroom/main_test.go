package main

import (
	"os"
	"testing"

	"strongroom/hsm/worker"
	"strongroom/keyspec/search"
)

// The servers of these tests run in this process, so that their workers are this program.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == worker.Argument {
		os.Exit(worker.Main())
	}
	if len(os.Args) == 3 && os.Args[1] == search.Argument {
		os.Exit(search.Main(os.Args[2]))
	}
	os.Exit(m.Run())
}
