package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom/kms"
	"strongroom/softhsm"
	"strongroom/store"
)

// configured writes a configuration for what is in a rig, and returns its path. The text may change it.
func configured(t *testing.T, rig string, change func(string) string) string {
	t.Helper()
	module, err := softhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.New(t.Context(), filepath.Join(rig, "softhsm")); err != nil { // leads SoftHSM there
		t.Fatal(err)
	}
	text := strings.NewReplacer("RIG", rig, "MODULE", module).Replace(`listen = "127.0.0.1:18200"
store = "sqlite:RIG/strongroom.db"
region = "local-1"

[audit]
dir = "RIG/audit"

[hsm]
module = "MODULE"
token_label = "strongroom"
pin_file = "RIG/softhsm/pin"
sync_dir = "RIG/softhsm/tokens"

[tls]
certificate = "RIG/tls.crt"
key = "RIG/tls.key"
`)
	if change != nil {
		text = change(text)
	}
	path := filepath.Join(rig, "strongroom.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certify writes a certificate of a rig that is valid from one time to another, and its key.
func certify(t *testing.T, rig string, from, to time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kms"}, NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err1 := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	private, err2 := x509.MarshalPKCS8PrivateKey(key)
	err = errors.Join(err1, err2,
		os.WriteFile(filepath.Join(rig, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(rig, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

func TestDoctorConfig(t *testing.T) {
	rig := patient(t)
	now := time.Now()
	valid := func(t *testing.T, dir string) { certify(t, dir, now.Add(-time.Hour), now.AddDate(1, 0, 0)) }
	valid(t, rig)
	t.Run("healthy", func(t *testing.T) {
		dir := copied(t, rig)
		config := configured(t, dir, nil)
		examination(t, "--config", config).healthy(t)
		t.Setenv(configVariable, config)
		examination(t).healthy(t)
	})

	replace := func(old, new string) func(string) string {
		return func(text string) string {
			if !strings.Contains(text, old) {
				panic(old)
			}
			return strings.Replace(text, old, new, 1)
		}
	}
	nothing := func(*testing.T, string) {}
	for _, test := range []struct {
		name                    string
		change                  func(string) string
		wrong                   func(t *testing.T, dir string)
		severity, check, remedy string
	}{
		{"a certificate that ended", nil, func(t *testing.T, dir string) { certify(t, dir, now.AddDate(-1, 0, 0), now.Add(-time.Hour)) },
			severeError, "tls-expired", "renew it"},
		{"a certificate that ends soon", nil, func(t *testing.T, dir string) { certify(t, dir, now.AddDate(-1, 0, 0), now.AddDate(0, 0, 29)) },
			severeWarning, "tls-expires", "renew it"},
		{"a certificate of tomorrow", nil, func(t *testing.T, dir string) { certify(t, dir, now.AddDate(0, 0, 1), now.AddDate(1, 0, 0)) },
			severeError, "tls-not-yet", "the clock"},
		{"a certificate with the key of another", nil, func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "tls.key"))
			valid(t, dir)
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "tls.key"), b, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, severeError, "tls-pair", "the key that belongs to it"},
		{"a key of the certificate that all can read", nil, func(t *testing.T, dir string) { os.Chmod(filepath.Join(dir, "tls.key"), 0o644) },
			severeError, "file-mode", "chmod 640 "},
		{"a configuration that others can write", nil, func(t *testing.T, dir string) { os.Chmod(filepath.Join(dir, "strongroom.toml"), 0o666) },
			severeError, "file-mode", "chmod 644 "},
		{"a sync_dir that is not the token's", replace("RIG/softhsm/tokens", "RIG/audit"), nothing, severeError, "sync-dir", `sync_dir = "`},
		{"no sync_dir", replace("sync_dir =", "# sync_dir ="), nothing, severeWarning, "sync-dir", `sync_dir = "`},
		{"another region", replace("local-1", "local-2"), nothing, severeError, "deployment", `region = "local-1"`},
		{"a limit that nobody can mean", func(s string) string { return s + "[limits]\npairs_rsa = 0.01\n" }, nothing, severeWarning, "limits", "requests a second"},
		{"one session", replace("[hsm]\n", "[hsm]\nsessions = 1\n"), nothing, severeWarning, "limits", "16"},
		{"another token", replace(`"strongroom"`, `"another"`), nothing, severeError, "token-open", "hsm.token_label"},
		{"no parent of the audit directory", nil, func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, "audit")) }, severeError, "audit-missing", "find the files"},
		{"a port that is taken", nil, func(t *testing.T, dir string) {
			l, err := net.Listen("tcp", "127.0.0.1:18200")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, severeWarning, "address-taken", "stop it, or change listen"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := copied(t, rig)
			config := configured(t, dir, func(text string) string {
				if test.change != nil {
					text = strings.ReplaceAll(test.change(strings.ReplaceAll(text, dir, "RIG")), "RIG", dir)
				}
				return text
			})
			test.wrong(t, dir)
			examination(t, "--config", config).finds(t, test.severity, test.check, test.remedy)
		})
	}
}

// A configuration with faults is examined all the same, and all its faults are told.
func TestDoctorFaultyConfig(t *testing.T) {
	dir := patient(t)
	certify(t, dir, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	config := configured(t, dir, func(text string) string { return "colour = \"blue\"\nlog_level = \"loud\"\n" + text })
	e := examination(t, "--config", config)
	if found := e.all(severeError); len(found) != 2 || !strings.HasSuffix(found[0].Where, ": colour") || !strings.HasSuffix(found[1].Where, ": log_level") || e.code != exitFailed {
		t.Errorf("%v", e)
	}
	if len(e.Parts[2].Checked) < 2 || len(e.Parts[4].Skipped) != 1 || len(e.Parts[6].Checked) == 0 {
		t.Errorf("store, token and audit log: %+v, %+v, %+v", e.Parts[2], e.Parts[4], e.Parts[6])
	}
	command(t, "doctor", "--config", dir).want(t, exitMisuse, "read the configuration")
}

// The PIN file that others can read is refused by whoever needs the PIN, so it is not tried; --fix helps both.
func TestDoctorPINFile(t *testing.T) {
	dir := patient(t)
	config := configured(t, dir, func(text string) string { text, _, _ = strings.Cut(text, "[tls]"); return text })
	if err := os.Chmod(filepath.Join(dir, "softhsm", "pin"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := examination(t, "--config", config)
	if found := e.all(severeError); len(found) != 2 || found[0].Check != "file-mode" || found[1].Check != "no-pin" {
		t.Errorf("%v", e)
	}
	examination(t, "--config", config, "--fix").healthy(t, "file-mode")
	examination(t, "--config", config).healthy(t)
}

func TestDoctorStaleSocket(t *testing.T) {
	dir := patient(t)
	short, err := os.MkdirTemp("", "sock") // the path of a socket has a short limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	path := filepath.Join(short, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	config := configured(t, dir, func(text string) string {
		text, _, _ = strings.Cut(text, "[tls]")
		return strings.Replace(text, "127.0.0.1:18200", "unix:"+path, 1)
	})
	examination(t, "--config", config).finds(t, severeWarning, "address-taken", "change listen")
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	examination(t, "--config", config).healthy(t, "leftover")
	examination(t, "--config", config, "--fix").healthy(t, "leftover")
	examination(t, "--config", config).healthy(t)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// A clock that was set ahead would have keys destroyed by the next start; keys that come due in the course of things are no finding.
func TestDoctorClockJump(t *testing.T) {
	dir := patient(t)
	now := time.Now()
	db, err := store.Open(t.Context(), filepath.Join(dir, "strongroom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d := &doctor{db: db, deployment: new(kms.Deployment)}
	look := func(now, latest time.Time) *part {
		p := newPart("clock")
		d.examineDue(t.Context(), p, now, latest)
		return p
	}
	finds := func(what string, p *part, severity, check string) {
		t.Helper()
		if len(p.Findings) != 1 || p.Findings[0].Severity != severity || p.Findings[0].Check != check {
			t.Errorf("%s: %+v", what, p)
		}
	}
	if p := look(now, now); len(p.Findings) != 0 || len(p.Checked) != 1 {
		t.Errorf("no key is due: %+v", p)
	}
	alias := func(tx kms.Tx) ([]kms.Alias, error) { return tx.Aliases(defaultAccount, kms.KeyID{}, "", 10) }
	err = db.Update(t.Context(), func(tx kms.Tx) error {
		all, err := alias(tx)
		for _, a := range all {
			err = errors.Join(err, tx.SetState(a.Key, kms.StateEnabled, kms.StatePendingDeletion, now.AddDate(0, 0, 30)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	later := now.AddDate(0, 0, 31)
	finds("few keys", look(later, now), severeNote, "keys-due")
	statements(t, dir, "INSERT INTO kms_key SELECT id || n, account, state, description, created, deletion_date, policy, rotation_days, next_rotation FROM kms_key, (SELECT 'x' AS n)",
		"UPDATE kms_key SET id = 'mrk-' || lower(hex(randomblob(16))) WHERE id LIKE '%x'")
	finds("many keys", look(later, now), severeWarning, "clock-jump")
	finds("many keys, in the course of things", look(later, later.Add(-time.Hour)), severeNote, "keys-due")
	d.served = true
	finds("many keys, of a server that runs", look(later, now), severeNote, "keys-due")

	was := clockState
	t.Cleanup(func() { clockState = was })
	clockState = func() (bool, error) { return false, nil }
	p := newPart("clock")
	d.examineClock(t.Context(), p)
	want := severeWarning
	if inContainer() {
		want = severeNote
	}
	finds("a clock that nobody sets", p, want, "clock-free")
	clockState = func() (bool, error) { return false, os.ErrPermission }
	p = newPart("clock")
	d.examineClock(t.Context(), p)
	finds("a clock of which nothing is known", p, severeNote, "clock-unknown")
}
