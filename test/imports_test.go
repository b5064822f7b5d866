package test

import (
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// imports is the shape of the program: for each package, the packages of ours that it may import. To change the shape, change this table
// and say why.
var imports = map[string]string{
	"keyspec":               "keyspec/secret",
	"keyspec/search":        "keyspec keyspec/secret",
	"keyspec/secret":        "",
	"hsm":                   "",
	"hsm/pkcs11":            "hsm",
	"hsm/worker":            "hsm hsm/pkcs11",
	"hsm/hsmtest":           "hsm",
	"kms":                   "hsm keyspec kms/attest kms/audit kms/policy",
	"kms/attest":            "",
	"kms/attest/attesttest": "kms/attest",
	"kms/audit":             "",
	"kms/policy":            "",
	"awsapi":                "keyspec kms",
	"store":                 "hsm kms",
	"softhsm":               "hsm/pkcs11",
	"softhsm/fault":         "",
	"cmd/strongroom":        "awsapi hsm hsm/pkcs11 hsm/worker keyspec keyspec/search keyspec/secret kms kms/attest kms/attest/attesttest kms/audit kms/policy softhsm store",
	"test/bench":            "hsm hsm/pkcs11 kms softhsm softhsm/fault store",
	"test/tokens":           "hsm/pkcs11",
}

// modules says which packages may import what other people wrote. Each dependency has few users, and the service has none.
var modules = map[string]string{
	"github.com/ThalesIgnite/crypto11":        "hsm/pkcs11",
	"github.com/miekg/pkcs11":                 "hsm/pkcs11 softhsm test/bench",
	"github.com/mattn/go-sqlite3":             "store",
	"github.com/go-json-experiment/json":      "awsapi cmd/strongroom kms/audit kms/policy",
	"github.com/emmansun/gmsm":                "keyspec",
	"github.com/decred/dcrd/dcrec/secp256k1/": "keyspec",
	"github.com/fxamacker/cbor/v2":            "kms/attest",
	"github.com/veraison/go-cose":             "kms/attest",
	"github.com/urfave/cli/v2":                "cmd/strongroom",
	"github.com/BurntSushi/toml":              "cmd/strongroom",
	"github.com/aws/aws-sdk-go-v2":            "cmd/strongroom test/bench",
	"github.com/aws/smithy-go":                "cmd/strongroom test/bench",
	"golang.org/x/crypto":                     "keyspec",
	"golang.org/x/sys":                        "cmd/strongroom hsm/pkcs11 hsm/worker keyspec/search kms/audit store",
	"golang.org/x/term":                       "cmd/strongroom",
	"golang.org/x/sync":                       "cmd/strongroom",
}

// kept are packages of the standard library that not every package may use: the service knows no file, socket or SQL, and only the driver
// calls C.
var kept = map[string]string{
	"C":            "hsm/pkcs11",
	"unsafe":       "hsm/pkcs11",
	"database/sql": "store",
	"net/http":     "awsapi cmd/strongroom test/bench",
	"os/exec":      "cmd/strongroom hsm/worker keyspec/search softhsm/fault test/bench test/tokens",
	"os":           "cmd/strongroom hsm/pkcs11 hsm/worker keyspec/search kms/audit softhsm softhsm/fault store test/bench test/tokens",
}

func TestImports(t *testing.T) {
	root := os.DirFS("..")
	found := make(map[string]bool)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), name, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		found[dir] = true
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(dir, imported); why != "" {
				t.Errorf("%s imports %s: %s", name, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range found {
		if _, ok := imports[dir]; !ok {
			t.Errorf("package %s is not in the table", dir)
		}
	}
	for dir := range imports {
		if !found[dir] {
			t.Errorf("package %s is in the table and not there", dir)
		}
	}
}

// forbidden returns why the package in dir may not import another one, or "".
func forbidden(dir, imported string) string {
	may := func(list string) bool { return slices.Contains(strings.Fields(list), dir) }
	if ours, ok := strings.CutPrefix(imported, "strongroom/"); ok {
		if !slices.Contains(strings.Fields(imports[dir]), ours) {
			return "not in its row of the table"
		}
		return ""
	}
	if domain, _, _ := strings.Cut(imported, "/"); strings.Contains(domain, ".") {
		for module, users := range modules {
			if imported == module || strings.HasPrefix(imported, strings.TrimSuffix(module, "/")+"/") {
				if !may(users) {
					return "only for " + users
				}
				return ""
			}
		}
		return "no such module in the table"
	}
	if users, ok := kept[imported]; ok && !may(users) {
		return "only for " + users
	}
	return ""
}

// TestForbidden: the table can say no.
func TestForbidden(t *testing.T) {
	for _, test := range []struct {
		dir, imported string
		ok            bool
	}{
		{"kms", "strongroom/hsm", true},
		{"kms", "strongroom/store", false},
		{"kms", "strongroom/hsm/pkcs11", false},
		{"hsm", "C", false},
		{"hsm/pkcs11", "C", true},
		{"kms", "os", false},
		{"kms", "github.com/miekg/pkcs11", false},
		{"keyspec", "github.com/emmansun/gmsm/sm2", true},
		{"keyspec", "github.com/emmansun/gmsmx", false},
		{"store", "github.com/mattn/go-sqlite3", true},
		{"cmd/strongroom", "github.com/mattn/go-sqlite3", false},
		{"awsapi", "github.com/someone/else", false},
		{"new", "strongroom/kms", false},
	} {
		if got := forbidden(test.dir, test.imported); (got == "") != test.ok {
			t.Errorf("%s imports %s: %q", test.dir, test.imported, got)
		}
	}
}
