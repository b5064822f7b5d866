package main

import (
	"os"
	"testing"

	"strongroom/hsm/worker"
)

// The servers of these tests run in this process, so that their workers are this program.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == worker.Argument {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}
