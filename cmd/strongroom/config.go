package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"strongroom/hsm/pkcs11"
	"strongroom/hsm/worker"
	"strongroom/kms"
)

// Config is the configuration file of a deployment: what `init` and `serve` are told. It is TOML, and decoded strictly: a key that is not
// here is an error. Secrets are named by path, because configurations get pasted into tickets. Nothing is read again while the
// server runs, except the TLS certificate and its key.
type Config struct {
	// Listen is where requests are answered: "host:port", or "unix:/path" for a Unix socket, which is made with
	// mode 0660. Any address but loopback needs TLS. Default: "127.0.0.1:8200".
	Listen string `toml:"listen"`

	// Store is where everything but the keys is kept: "sqlite:/absolute/path". `init` makes it. Required.
	Store string `toml:"store"`

	// Region is the Region that this deployment says it is, in ARNs and in the scope of signatures. The default, "local-1", is no Region of
	// AWS, so that a client that forgets its endpoint reaches nobody. It cannot be changed after `init`.
	Region string `toml:"region"`

	// Partition is the second part of every ARN. Default: "aws". It cannot be changed after `init`.
	Partition string `toml:"partition"`

	// SM2 says whether SM2 data key pairs are made. Where false, asking for one is answered as AWS does outside China. Default: true.
	SM2 *bool `toml:"sm2"`

	// LogLevel is "debug", "info", "warn" or "error". The log is for operators and goes to standard error. Default: "info".
	LogLevel string `toml:"log_level"`

	// Metrics is where GET /metrics is answered, for Prometheus: "host:port". Who reaches it needs no credentials and learns the ids of keys and
	// how much they are used, so it is for loopback or a network of operators. Default: nowhere.
	Metrics string `toml:"metrics"`

	TLS         TLSConfig         `toml:"tls"`
	HSM         HSMConfig         `toml:"hsm"`
	Audit       AuditConfig       `toml:"audit"`
	Limits      LimitsConfig      `toml:"limits"`
	Attestation AttestationConfig `toml:"attestation"`
	Pool        PoolConfig        `toml:"pool"`
	Cache       CacheConfig       `toml:"cache"`
}

// TLSConfig names the server's certificate. Both files are read again when they change.
type TLSConfig struct {
	Certificate string `toml:"certificate"` // PEM, leaf first
	Key         string `toml:"key"`         // PEM
}

// HSMConfig says how the token that holds the keys is reached.
type HSMConfig struct {
	// Module is the absolute path of the PKCS#11 library. Required.
	Module string `toml:"module"`

	// InitArgs is handed to the library when it is initialised (pReserved of C_Initialize). Only NSS's softokn is known to want it; most others
	// refuse to start with it. Default: none.
	InitArgs string `toml:"init_args"`

	// TokenLabel or TokenSerial chooses the token; slot numbers change and are no way to. Exactly one is required.
	TokenLabel  string `toml:"token_label"`
	TokenSerial string `toml:"token_serial"`

	// PINFile holds the user PIN, in a file that only its owner can read. A newline at its end does not count. Without it the PIN is taken from the
	// environment variable STRONGROOM_PIN, or asked for on the terminal.
	PINFile string `toml:"pin_file"`

	// Sessions bounds how many sessions are open at once for encryption. Eight more are used for other things. Default: 16.
	Sessions int `toml:"sessions"`

	// SessionCopies has keys used through copies in the module's memory. It makes SoftHSM twice as fast and is no use with
	// hardware. Default: false.
	SessionCopies bool `toml:"session_copies"`

	// Workers is how many processes of its own the server keeps the library in, so that one that hangs or crashes can be replaced. Default: one for
	// each processor, and two at least.
	Workers int `toml:"workers"`

	// CallTimeout is how long a call into the library may take on the path of a request before its worker is replaced, and SlowCallTimeout any other:
	// initialising, logging in, finding, making and destroying keys. Defaults: "2s", "10s".
	CallTimeout     duration `toml:"call_timeout"`
	SlowCallTimeout duration `toml:"slow_call_timeout"`

	// Patience is how long requests wait for an HSM that is away, from when it was lost. After that they are answered at once, with an error that clients
	// retry. Default: "5s".
	Patience duration `toml:"patience"`

	// IV says who makes the IVs of AES-GCM: "host", or the token, which gives them back in one of three ways: "device-zeroed" (AWS CloudHSM, nShield),
	// "device-appended" (Luna in FIPS mode), "device-returned". `init` finds it out, and writes it here if it is not the default; `serve` refuses a
	// token that does it in another way. Default: "host".
	IV string `toml:"iv"`

	// SyncDir is the directory of a token that is kept in files without being synced by its library (SoftHSM): it is flushed to disk
	// after each creation of a key. Real HSMs do not need it.
	SyncDir string `toml:"sync_dir"`

	pinNote string // see guardPIN
}

// A duration is written as Go writes it: "2s", "1m30s".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(b []byte) error {
	t, err := time.ParseDuration(string(b))
	*d = duration(t)
	return err
}

// defaultHSM is what an HSMConfig says that says nothing.
var defaultHSM = HSMConfig{
	Sessions: 16, Workers: max(2, runtime.NumCPU()),
	CallTimeout: duration(2 * time.Second), SlowCallTimeout: duration(10 * time.Second), Patience: duration(5 * time.Second),
}

// workers says how the server opens the configured token.
func (h *HSMConfig) workers(ctx context.Context) worker.Config {
	return workerConfig(tokenConfig(ctx, *h), *h)
}

// workerConfig says how the server opens a token.
func workerConfig(token pkcs11.Config, h HSMConfig) worker.Config {
	return worker.Config{
		Token: token, Workers: h.Workers,
		CallTimeout: time.Duration(h.CallTimeout), SlowTimeout: time.Duration(h.SlowCallTimeout), Patience: max(1, time.Duration(h.Patience)),
		Env: slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, pinVariable+"=") }),
	}
}

// AuditConfig says where the audit log is and how it is kept.
type AuditConfig struct {
	// Dir is the directory of the log's files and of nothing else: an absolute path whose parent is there. Default: "audit" beside the file of
	// the store. Two deployments cannot have one.
	Dir string `toml:"dir"`

	// MaxSize is how many MiB a file has before the next is begun. Default: 64.
	MaxSize int `toml:"max_size"`

	// A checkpoint is signed by the HSM after CheckpointRecords records, and CheckpointSeconds after the one before if there are records that
	// it does not cover. Defaults: 1000, 60.
	CheckpointRecords int `toml:"checkpoint_records"`
	CheckpointSeconds int `toml:"checkpoint_seconds"`
}

// CacheConfig says what may be remembered of the store between requests: keys, policies, grants, aliases, principals and access keys, those in use.
type CacheConfig struct {
	// Memory is how many MiB that may take. The heap of the server has at most about twice that, and 256 MiB. Default: 64, which is enough for some
	// 30,000 keys in use.
	Memory int `toml:"memory"`
}

var defaultCache = CacheConfig{Memory: kms.DefaultMemory >> 20}

// maxCache is how many MiB a cache may have.
const maxCache = 1 << 16

func (c CacheConfig) bytes() int64 { return int64(c.Memory) << 20 }

// LimitsConfig says how many requests a second each principal may make, by their kind, before it is told to slow down. Twice as many may come
// at once after a quiet time. 0 is no limit. Defaults: kms.DefaultLimits.
type LimitsConfig struct {
	Symmetric  float64 `toml:"symmetric"`   // Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateRandom
	PairsRSA   float64 `toml:"pairs_rsa"`   // data key pairs that need a search for primes
	PairsOther float64 `toml:"pairs_other"` // all other data key pairs
	Reads      float64 `toml:"reads"`       // Describe, Get, List
	Changes    float64 `toml:"changes"`     // all that changes something
}

func (l *LimitsConfig) limits() kms.Limits {
	return kms.Limits{
		kms.Symmetric: l.Symmetric, kms.PairsRSA: l.PairsRSA, kms.PairsOther: l.PairsOther, kms.Reads: l.Reads, kms.Changes: l.Changes,
	}
}

func limitsConfig(l kms.Limits) LimitsConfig {
	return LimitsConfig{
		Symmetric: l[kms.Symmetric], PairsRSA: l[kms.PairsRSA], PairsOther: l[kms.PairsOther], Reads: l[kms.Reads], Changes: l[kms.Changes],
	}
}

var defaultAudit = AuditConfig{MaxSize: 64, CheckpointRecords: 1000, CheckpointSeconds: 60}

// rig says what openRig is to open.
func (c *Config) rig(ctx context.Context) (rigOptions, error) {
	attestation, err := c.Attestation.options(ctx)
	return rigOptions{
		store: c.Store, token: c.HSM.workers(ctx), sm2: c.SM2 == nil || *c.SM2, audit: c.Audit, limits: c.Limits.limits(), attestation: attestation,
		pool: c.Pool, cache: c.Cache,
	}, err
}

// loadConfig reads a configuration file. Its error names everything that is wrong with it, by key.
func loadConfig(ctx context.Context, path string) (*Config, error) {
	c, faults, err := readConfig(ctx, path)
	if err != nil {
		return nil, err
	}
	if len(faults) > 0 {
		return nil, misuse("%s:\n  %s", path, strings.Join(faults, "\n  "))
	}
	return c, nil
}

// readConfig reads a configuration file and returns what it says, and all that is wrong with that, by key. The error is that it cannot be read at all.
func readConfig(ctx context.Context, path string) (c *Config, faults []string, err error) {
	if path == "" {
		return nil, nil, misuse("which configuration? --config FILE is required")
	}
	c = &Config{
		Listen:      "127.0.0.1:8200",
		Region:      "local-1",
		Partition:   "aws",
		LogLevel:    "info",
		HSM:         defaultHSM,
		Audit:       defaultAudit,
		Limits:      limitsConfig(kms.DefaultLimits),
		Attestation: defaultAttestation(),
		Pool:        defaultPool(),
		Cache:       defaultCache,
	}
	meta, err := toml.DecodeFile(path, c)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return nil, nil, misuse("%s: %s", path, strings.TrimSpace(pe.ErrorWithPosition()))
		}
		return nil, nil, misuse("read the configuration: %w", err)
	}
	for _, key := range meta.Undecoded() {
		faults = append(faults, fmt.Sprintf("%s: no such key", key))
	}
	faults = append(faults, c.check(ctx)...)
	file := strings.TrimPrefix(c.Store, "sqlite:")
	if c.Audit.Dir == "" {
		c.Audit.Dir = filepath.Join(filepath.Dir(file), "audit")
	}
	c.HSM.pinNote = notePath(file)
	return c, faults, nil
}

var (
	regionPattern    = regexp.MustCompile(`^([a-z]+-){1,3}\d+$`)
	partitionPattern = regexp.MustCompile(`^aws(-[a-z]+)*$`)
)

// check returns all that is wrong with the values, each named as the reader wrote it.
func (c *Config) check(ctx context.Context) []string {
	var faults []string
	fault := func(key, format string, args ...any) {
		faults = append(faults, key+": "+fmt.Sprintf(format, args...))
	}
	file := func(key, path string) {
		switch info, err := os.Stat(path); {
		case !filepath.IsAbs(path):
			fault(key, "%q is not an absolute path", path)
		case err != nil:
			fault(key, "%v", err)
		case info.IsDir():
			fault(key, "%s is a directory", path)
		}
	}

	if local, err := listensLocally(c.Listen); err != nil {
		fault("listen", "%v", err)
	} else if !local && c.TLS == (TLSConfig{}) {
		fault("tls", "required, because listen = %q is not loopback: without it everybody on the way can read keys", c.Listen)
	}
	switch rest, ok := strings.CutPrefix(c.Store, "sqlite:"); {
	case c.Store == "":
		fault("store", `required, for example "sqlite:/var/lib/strongroom/strongroom.db"`)
	case !ok || !filepath.IsAbs(rest):
		fault("store", `%q is not of the form "sqlite:/absolute/path"`, c.Store)
	}
	if !regionPattern.MatchString(c.Region) {
		fault("region", "%q does not look like a Region, such as local-1 or eu-west-1", c.Region)
	}
	if !partitionPattern.MatchString(c.Partition) {
		fault("partition", "%q does not look like a partition, such as aws or aws-cn", c.Partition)
	}
	if !slices.Contains(logLevels, c.LogLevel) {
		fault("log_level", "%q is none of %s", c.LogLevel, strings.Join(logLevels, ", "))
	}
	if c.Metrics != "" {
		if err := checkMetrics(c.Metrics); err != nil {
			fault("metrics", "%v", err)
		}
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		fault("tls", "certificate and key are needed both")
	} else if c.TLS.Certificate != "" {
		file("tls.certificate", c.TLS.Certificate)
		file("tls.key", c.TLS.Key)
		if strings.HasPrefix(c.Listen, "unix:") {
			fault("tls", "a Unix socket is not encrypted; leave tls out")
		}
	}
	if c.HSM.Module == "" {
		fault("hsm.module", "required: the absolute path of the PKCS#11 library")
	} else {
		file("hsm.module", c.HSM.Module)
	}
	if (c.HSM.TokenLabel == "") == (c.HSM.TokenSerial == "") {
		fault("hsm.token_label", "exactly one of token_label and token_serial is required")
	}
	if strings.Contains(c.HSM.InitArgs, "\x00") {
		fault("hsm.init_args", "it has a zero byte in it, which ends it")
	}
	if c.HSM.PINFile != "" {
		file("hsm.pin_file", c.HSM.PINFile)
	}
	if c.HSM.Sessions < 1 || c.HSM.Sessions > 1024 {
		fault("hsm.sessions", "%d is not from 1 to 1024", c.HSM.Sessions)
	}
	if c.HSM.Workers < 1 || c.HSM.Workers > 64 {
		fault("hsm.workers", "%d is not from 1 to 64", c.HSM.Workers)
	}
	for _, d := range []struct {
		key       string
		value     duration
		min, most time.Duration
	}{
		{"hsm.call_timeout", c.HSM.CallTimeout, 50 * time.Millisecond, requestTimeout / 2},
		{"hsm.slow_call_timeout", c.HSM.SlowCallTimeout, 50 * time.Millisecond, 10 * time.Minute},
		{"hsm.patience", c.HSM.Patience, 0, requestTimeout / 2},
	} {
		if v := time.Duration(d.value); v < d.min || v > d.most {
			fault(d.key, "%v is not from %v to %v", v, d.min, d.most)
		}
	}
	if c.HSM.IV != "" {
		var source pkcs11.IVSource
		if err := source.UnmarshalText([]byte(c.HSM.IV)); err != nil {
			fault("hsm.iv", "%v", err)
		}
	}
	if c.HSM.SyncDir != "" {
		if info, err := os.Stat(c.HSM.SyncDir); err != nil || !info.IsDir() || !filepath.IsAbs(c.HSM.SyncDir) {
			fault("hsm.sync_dir", "%q is not the absolute path of a directory", c.HSM.SyncDir)
		}
	}
	if c.Audit.Dir != "" && !filepath.IsAbs(c.Audit.Dir) {
		fault("audit.dir", "%q is not an absolute path", c.Audit.Dir)
	}
	for _, n := range []struct {
		key        string
		value, max int
	}{
		{"audit.max_size", c.Audit.MaxSize, 1 << 20},
		{"audit.checkpoint_records", c.Audit.CheckpointRecords, 100_000},
		{"audit.checkpoint_seconds", c.Audit.CheckpointSeconds, 24 * 60 * 60},
		{"cache.memory", c.Cache.Memory, maxCache},
	} {
		if n.value < 1 || n.value > n.max {
			fault(n.key, "%d is not from 1 to %d", n.value, n.max)
		}
	}
	for _, l := range []struct {
		key   string
		value float64
	}{
		{"limits.symmetric", c.Limits.Symmetric},
		{"limits.pairs_rsa", c.Limits.PairsRSA},
		{"limits.pairs_other", c.Limits.PairsOther},
		{"limits.reads", c.Limits.Reads},
		{"limits.changes", c.Limits.Changes},
	} {
		const least, most = 0.001, 1e9
		if l.value != 0 && !(l.value >= least && l.value <= most) { // nor NaN
			fault(l.key, "%v is neither 0, for no limit, nor from %v to %.0f requests a second", l.value, least, most)
		}
	}
	c.Pool.check(fault)
	return append(faults, c.Attestation.check(ctx)...)
}

// listensLocally reports whether only this machine can reach an address.
func listensLocally(listen string) (bool, error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return false, fmt.Errorf("%q: the path of a Unix socket must be absolute", listen)
		}
		return true, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return false, fmt.Errorf(`%q is neither "host:port" nor "unix:/path"`, listen)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return false, fmt.Errorf("%q: no such port", listen)
	}
	// A name that is not an address may mean another one tomorrow; localhost is promised to stay (RFC 6761, section 6.3).
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback(), nil
}
