package test

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"strongroom/softhsm"
	"strongroom/softhsm/fault"
)

// faultModule builds the module that fails as a script says, once, beside the program.
var faultModule = sync.OnceValues(func() (string, error) { return fault.Build(filepath.Dir(program)) })

// faultyModule is faulty [LINE]: it puts the fault module before SoftHSM, as $FAULT, and makes LINE its whole script; without it the module just forwards.
func faultyModule(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) <= 1, "faulty [LINE]")
	module, err := faultModule()
	ts.Check(err)
	real, err := softhsm.Module()
	ts.Check(err)
	script := fault.Script(ts.MkAbs("fault-script"))
	ts.Setenv("FAULT", module)
	ts.Setenv("STRONGROOM_FAULT_MODULE", real)
	ts.Setenv("STRONGROOM_FAULT_SCRIPT", string(script))
	ts.Check(os.MkdirAll(filepath.Dir(string(script)), 0o700))
	ts.Check(script.Set(args...))
}
