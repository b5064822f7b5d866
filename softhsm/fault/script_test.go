package fault_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

// wrong is lines that are no script, and what is said of them.
var wrong = []struct{ line, says string }{
	{"C_Encrypt return CKR_OK", `there is no directive "C_Encrypt"`},
	{"on", `"on" wants functions`},
	{"on C_Encript return CKR_OK", `there is no function "C_Encript"`},
	{"on C_Encrypt,,C_Nothing abort", `there is no function "C_Nothing"`},
	{"on C_Nothing* abort", `there is no function "C_Nothing*"`},
	{"on all,-C_Nothing abort", `there is no function "C_Nothing"`},
	{"on C_GetFunctionList abort", `there is no function "C_GetFunctionList"`},
	{"on * ", "what is to happen?"},
	{"on * return", "wants a return value"},
	{"on * return CKR_DEVICE_EROR", `"CKR_DEVICE_EROR" is not the name of a return value`},
	{"on * return 48", `"48" is not the name of a return value`},
	{"on * return 0x", `"0x" is not the name of a return value`},
	{"on C_GetSlotList,C_OpenSession drop-session", "none of these functions is about a session"},
	{"on * drop-session CKR_NOTHING", `"CKR_NOTHING" is not one of`},
	{"idle 0", `"0" is not a number`},
	{"on * delay", "delay wants a number"},
	{"on * delay -1", `"-1" is not a number`},
	{"on * delay 10ms", `"10ms" is not a number`},
	{"on * hang every", "every wants a number"},
	{"on * hang every 0", `"0" is not a number`},
	{"on * hang every 2 every 3", `"every" is not one of`},
	{"on * hang once times 2", `"times" is not one of`},
	{"on * hang times 2 once", `"once" is not one of`},
	{"on * hang after instead", `"instead" is not one of`},
	{"on * hang across", `"across" wants "processes"`},
	{"on * hang sometimes", `"sometimes" is not one of`},
	{"seed", "seed wants a number"},
	{"seed x", `"x" is not a number`},
	{"seed 1\nseed 2", `"seed" is there twice`},
	{"generation", "generation wants a number"},
	{"generation 4294967296", "is not a number"},
	{"generation 1\n\ngeneration 2", `:3: "generation" is there twice`},
	{"handles", `"handles" wants`},
	{"handles away", `"handles" wants`},
	{"handles swap shift", `"shift" does not belong there`},
	{"handles swap\nhandles shift", `"handles" is there twice`},
	{"sessions", "sessions wants a number"},
	{"sessions many", `"many" is not a number`},
	{"sessions 3 SOME", `"SOME" is not the name of a return value`},
	{"sessions 3 across", `"across" wants "processes"`},
	{"sessions 3\nsessions 4", "is there twice"},
	{"sessions reuse\nsessions reuse", "is there twice"},
	{"slots", `"slots" wants "shift"`},
	{"slots swap", `"slots" wants "shift"`},
	{"stuck", "stuck wants a return value"},
	{"away", "away wants a return value"},
	{"away hang on", `"on" does not belong there`},
	{"away CKR_DEVICE_REMOVED from", `"from" wants "C_Initialize"`},
	{"away CKR_DEVICE_REMOVED from C_Login", `"from" wants "C_Initialize"`},
	{"iv", `"iv" wants`},
	{"iv random", `"iv" wants`},
	{"iv zeroed by", `"by" wants`},
	{"iv appended by C_Encrypt", `"by" does not belong there`},
	{"aad", "aad wants a number"},
	{"data x", `"x" is not a number`},
	{"objects", "objects wants a number"},
	{"ulMaxSessionCount", "ulMaxSessionCount wants a number"},
	{"mechanisms", `"mechanisms" wants "without"`},
	{"mechanisms without", `"mechanisms" wants "without"`},
	{"mechanisms without CKM_AES_GMC", `"CKM_AES_GMC" is not the name of a mechanism`},
	{"bad-tag", "bad-tag wants a return value"},
	{"pin-tries 0", `"0" is not a number`},
	{"count", `"count" wants a file`},
	{"count nowhere/counts", "No such file or directory"},
	{"count script", "the file of counts"},
	{strings.Repeat("on all hang once\n", 257), ":257: there are more than 256 rules"},
	{strings.Repeat("x ", 65), "more than 64 words"},
	{"on all abort once\nON all abort", `:2: there is no directive "ON"`},
}

// TestBroken: a script with a fault stops everything, says why, and is mended by another one. It is one process for each, to see what
// is said.
func TestBroken(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	for _, test := range wrong {
		c.set(t, test.line)
		_, err := c.GenerateRandom(s, 1)
		wants(t, test.line, err, p11.CKR_GENERAL_ERROR)
		wants(t, test.line, c.Initialize(), p11.CKR_GENERAL_ERROR)

		out, err := exec.CommandContext(t.Context(), direct, "sessions", module, c.pin).CombinedOutput()
		if err == nil || !strings.Contains(string(out), test.says) || !strings.Contains(string(out), string(c.script)+":") {
			t.Errorf("%q: %v: it says %q, want %q", test.line, err, out, test.says)
		}
		if n := strings.Count(string(out), "strongroom-fault:"); n != 1 {
			t.Errorf("%q: it says so %d times: %s", test.line, n, out)
		}
	}
	c.set(t, "# mended")
	_, err := c.GenerateRandom(s, 1)
	wants(t, "mended", err, p11.CKR_OK)
}

// TestScriptFile: other ways in which a script changes than by a rename.
func TestScriptFile(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(string(c.script), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, code p11.Error) {
		t.Helper()
		settled()
		_, err := c.GenerateRandom(s, 1)
		wants(t, what, err, code)
	}
	check("no script", p11.CKR_OK)
	write("on all return CKR_DEVICE_ERROR # without a line break at its end")
	check("a new script", p11.CKR_DEVICE_ERROR)
	write("on all return CKR_DEVICE_MEMORY\r\n")
	check("rewritten in place", p11.CKR_DEVICE_MEMORY)
	if err := os.Remove(string(c.script)); err != nil {
		t.Fatal(err)
	}
	check("removed", p11.CKR_OK)
	if err := os.Mkdir(string(c.script), 0o700); err != nil {
		t.Fatal(err)
	}
	check("a directory", p11.CKR_GENERAL_ERROR)
	if err := os.Remove(string(c.script)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", string(c.script)); err != nil {
		t.Fatal(err)
	}
	check("a link to nothing", p11.CKR_OK)
	write("on all return CKR_DEVICE_ERROR")
	check("a link to a script", p11.CKR_DEVICE_ERROR)
	if err := os.Remove(string(c.script)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(string(c.script)), string(c.script)); err != nil {
		t.Fatal(err)
	}
	check("a link to itself", p11.CKR_GENERAL_ERROR)
	os.Remove(string(c.script))
	check("removed", p11.CKR_OK)

	// Another one is named between C_Finalize and C_Initialize.
	c.set(t, "on C_GetInfo return CKR_DEVICE_ERROR")
	_, err := c.GetInfo()
	wants(t, "C_GetInfo", err, p11.CKR_DEVICE_ERROR)
	wants(t, "C_Finalize", c.Finalize(), p11.CKR_OK)
	t.Setenv("STRONGROOM_FAULT_SCRIPT", "")
	wants(t, "C_Initialize", c.Initialize(), p11.CKR_OK)
	_, err = c.GetInfo()
	wants(t, "C_GetInfo without a script", err, p11.CKR_OK)
}

// TestModule: what is wrong with the module to forward to is said.
func TestModule(t *testing.T) {
	notOne := filepath.Join(t.TempDir(), "lib.so")
	c := exec.Command("gcc", "-shared", "-o", notOne, "-x", "c", "/dev/null")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, test := range []struct{ real, says string }{
		{"", "STRONGROOM_FAULT_MODULE does not name"},
		{"/nowhere/lib.so", "/nowhere/lib.so: cannot open"},
		{notOne, "not a PKCS #11 module"},
		{module, "this module itself"},
	} {
		c := exec.CommandContext(t.Context(), direct, "sessions", module, "pin")
		c.Env = append(os.Environ(), "STRONGROOM_FAULT_MODULE="+test.real)
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), test.says) || !strings.Contains(string(out), "get(&p11): 0x5") {
			t.Errorf("%q: %v: it says %q, want %q, and that C_GetFunctionList failed", test.real, err, out, test.says)
		}
	}
}

// TestREADME: what is given there as a script is one.
func TestREADME(t *testing.T) {
	c := newClient(t)
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	reference, recipes, ok := strings.Cut(string(b), "## Recipes")
	if !ok {
		t.Fatal("README.md has no recipes")
	}
	var examples []string
	for i, block := range strings.Split(reference, "```\n") {
		if i%2 == 1 && strings.HasPrefix(block, "on C_Encrypt return") {
			examples = append(examples, block)
		}
	}
	for i, block := range strings.Split(recipes, "```\n") {
		if i%2 == 1 {
			examples = append(examples, block)
		}
	}
	for _, block := range examples {
		// The line behind it is the first that is wrong.
		c.set(t, block+"end")
		out, err := exec.CommandContext(t.Context(), direct, "sessions", module, c.pin).CombinedOutput()
		if says := fmt.Sprintf(":%d: there is no directive \"end\"", strings.Count(block, "\n")+1); err == nil || !strings.Contains(string(out), says) {
			t.Errorf("%s\n%s", block, out)
		}
	}
	if len(examples) < 15 {
		t.Errorf("%d examples were found", len(examples))
	}
}
