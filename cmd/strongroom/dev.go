package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"strongroom/kms"
	"strongroom/softhsm"
	"strongroom/store"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:         "dev",
		OnUsageError: onUsageError,
		Usage:        "a private SoftHSM token, a store and a server in one directory, for tests",
		Description: `Makes everything on the first start and finds it again on the next. Needs no configuration and no root
rights; needs SoftHSM 2 (Debian: apt-get install softhsm2). SIGTERM and SIGINT stop it; SIGHUP begins the next file of the
audit log, which is in DIR/audit. A DIR of an older strongroom is brought up to date.

DIR/attestation holds a root of its own for attestation documents, with its key: strongroom attest make signs with it, and
this server alone believes it.

DIR/env is written once requests are answered, and removed at the end. It is to be sourced and sets
AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL_STS, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_DEFAULT_REGION and
STRONGROOM_ACCOUNT.

Not for keys that matter: the token's PIN and the secret of the access key lie in DIR.

Example:  strongroom dev --dir ./rig &
          while ! [ -f ./rig/env ]; do sleep 0.1; done; . ./rig/env; aws kms list-keys`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR`"},
			&cli.StringFlag{Name: "listen", Usage: "answer on `ADDRESS`, which must be loopback; port 0 takes a free one", Value: "127.0.0.1:0"},
			&cli.StringFlag{Name: "metrics", Usage: "answer GET /metrics on `ADDRESS` too, likewise"},
			&cli.IntFlag{Name: "pool", Usage: "have `N` RSA key pairs of each size ready before anybody asks"},
			&cli.IntFlag{Name: "cache", Usage: "remember up to `N` MiB of keys, policies and grants", Value: defaultCache.Memory},
			&cli.StringFlag{Name: "log-level", Usage: "`LEVEL` of the log: debug, info, warn or error", Value: "warn"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.String("dir") == "" {
				return misuse("in which directory? --dir DIR is required")
			}
			if local, err := listensLocally(c.String("listen")); err != nil {
				return misuse("--listen: %w", err)
			} else if !local || strings.HasPrefix(c.String("listen"), "unix:") {
				return misuse("--listen %s: dev answers without TLS, on loopback addresses only", c.String("listen"))
			}
			if m := c.String("metrics"); m != "" {
				if err := checkMetrics(m); err != nil {
					return misuse("--metrics: %w", err)
				} else if local, _ := listensLocally(m); !local {
					return misuse("--metrics %s: dev answers on loopback addresses only", m)
				}
			}
			if !slices.Contains(logLevels, c.String("log-level")) {
				return misuse("--log-level %q is none of %s", c.String("log-level"), strings.Join(logLevels, ", "))
			}
			if n := c.Int("pool"); n < 0 || n > maxPool {
				return misuse("--pool %d is not from 0 to %d", n, maxPool)
			}
			cache := CacheConfig{Memory: c.Int("cache")}
			if cache.Memory < 1 || cache.Memory > maxCache {
				return misuse("--cache %d is not from 1 to %d", cache.Memory, maxCache)
			}
			log := newLogger(c.App.ErrWriter, c.String("log-level"))
			hardenProcess(log)
			tuneRuntime(cache)
			return runDev(c.Context, log, c.String("dir"), c.String("listen"), c.String("metrics"), devPool(c.Int("pool")), cache, func(d *devRig) error {
				if c.Bool("json") {
					about := map[string]string{"endpoint": d.endpoint, "env": d.envFile(), "account": defaultAccount, "region": devRegion}
					if d.metrics != "" {
						about["metrics"] = d.metrics
					}
					return json.NewEncoder(c.App.Writer).Encode(about)
				}
				metrics := ""
				if d.metrics != "" {
					metrics = "metrics:      " + d.metrics + "\n"
				}
				_, err := fmt.Fprintf(c.App.Writer, "strongroom is answering on %s\n%scredentials:  . %s\ntry:          aws kms list-keys\nstop:         Ctrl-C, or SIGTERM to process %d\n",
					d.endpoint, metrics, shellQuote(d.envFile()), os.Getpid())
				return err
			})
		},
	}
}

const (
	devRegion    = "local-1"
	devPartition = "aws"
)

// A devRig is a directory with all that a server needs.
type devRig struct {
	dir      string
	key      kms.AccessKey
	endpoint string
	metrics  string // URL, or empty
	auditKey []byte // that verifies the audit log, in PEM
}

func (d *devRig) envFile() string         { return filepath.Join(d.dir, "env") }
func (d *devRig) storeFile() string       { return filepath.Join(d.dir, "strongroom.db") }
func (d *devRig) storeURL() string        { return "sqlite:" + d.storeFile() }
func (d *devRig) auditDir() string        { return filepath.Join(d.dir, "audit") }
func (d *devRig) tokenDir() string        { return filepath.Join(d.dir, "softhsm") }
func (d *devRig) credentialsFile() string { return filepath.Join(d.dir, "credentials.json") }

// runDev serves the rig in dir until ctx ends. It calls ready once requests are answered and DIR/env is there.
func runDev(ctx context.Context, log *slog.Logger, dir, address, metrics string, pool PoolConfig, cache CacheConfig, ready func(*devRig) error) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()

	d := &devRig{dir: dir}
	// Whoever waits for the file must not find the one of an earlier start.
	if err := os.Remove(d.envFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r, err := d.open(ctx, log, pool, cache)
	if err != nil {
		return err
	}
	defer r.close()
	l, err := listen(ctx, log, address, TLSConfig{})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := r.listenMetrics(ctx, metrics); err != nil {
		return err
	}
	if r.metrics != nil {
		d.metrics = endpointOf(r.metrics.Addr()) + "/metrics"
	}
	d.endpoint, d.auditKey = endpointOf(l.Addr()), r.audit.PublicKeyPEM()
	if err := d.writeEnv(); err != nil {
		return err
	}
	defer os.Remove(d.envFile())

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- r.serve(ctx, l) }()
	// The listener has been open since before the file was written: a client that comes now waits at most for the accept.
	if err := ready(d); err != nil {
		stop()
		return errors.Join(err, <-served)
	}
	return <-served
}

// open finds or makes the token, the store and the access key, and opens them. Every step may have been interrupted in an earlier start.
func (d *devRig) open(ctx context.Context, log *slog.Logger, pool PoolConfig, cache CacheConfig) (*rig, error) {
	token, err := softhsm.New(ctx, d.tokenDir())
	if err != nil {
		return nil, err
	}
	if err := d.makeAttestationRoot(ctx); err != nil {
		return nil, fmt.Errorf("make the root of attestation documents: %w", err)
	}
	attestation, err := d.attestation(ctx)
	if err != nil {
		return nil, err
	}
	o := rigOptions{
		store: d.storeURL(), token: workerConfig(token, defaultHSM), sm2: true, audit: defaultAudit, limits: kms.DefaultLimits, attestation: attestation,
		pool: pool, cache: cache,
	}
	o.audit.Dir = d.auditDir()
	var r *rig
	_, err = os.Stat(d.storeFile())
	first := errors.Is(err, fs.ErrNotExist)
	if !first {
		if err := store.Migrate(ctx, o.store); err != nil {
			return nil, err
		}
		r, err = openRig(ctx, log, o)
		first = errors.Is(err, kms.ErrNotStored) // the first start was interrupted
	}
	if first {
		// The access key is on disk before the store knows it, so that there is none that nobody knows.
		key := kms.NewAccessKey()
		if err := d.writeCredentials(key); err != nil {
			return nil, err
		}
		err = initialize(ctx, deployment{
			store: o.store, token: token, partition: devPartition, region: devRegion, account: defaultAccount, key: key,
		})
		if err != nil {
			return nil, err
		}
		r, err = openRig(ctx, log, o)
	}
	if err != nil {
		return nil, err
	}
	if err := d.readCredentials(); err != nil {
		r.close()
		return nil, hint(fmt.Errorf("the rig's access key: %w", err), "remove "+d.dir+" to begin afresh; its keys are lost then")
	}
	return r, nil
}

// writeCredentials keeps the access key for later starts. Unlike DIR/env it stays when the server stops.
func (d *devRig) writeCredentials(key kms.AccessKey) error {
	b, err := json.Marshal(map[string]string{"AccessKeyId": key.ID, "SecretAccessKey": key.Secret})
	if err != nil {
		return err
	}
	return writeFileAtomically(d.credentialsFile(), append(b, '\n'))
}

func (d *devRig) readCredentials() error {
	b, err := os.ReadFile(d.credentialsFile())
	if err != nil {
		return err
	}
	var key struct{ AccessKeyId, SecretAccessKey string }
	if err := json.Unmarshal(b, &key); err != nil {
		return fmt.Errorf("%s: %w", d.credentialsFile(), err)
	}
	d.key = kms.AccessKey{ID: key.AccessKeyId, Secret: key.SecretAccessKey}
	return nil
}

// writeEnv writes the file that makes AWS clients in a shell talk to this rig. Other programs read it too: its names and its form, one
// "export NAME=value" a line with values that need no quotes, stay.
func (d *devRig) writeEnv() error {
	var b strings.Builder
	for _, v := range [][2]string{
		{"AWS_ENDPOINT_URL_KMS", d.endpoint},
		{"AWS_ENDPOINT_URL_STS", d.endpoint}, // for GetCallerIdentity
		{"AWS_ACCESS_KEY_ID", d.key.ID},
		{"AWS_SECRET_ACCESS_KEY", d.key.Secret},
		{"AWS_REGION", devRegion},
		{"AWS_DEFAULT_REGION", devRegion},
		{"STRONGROOM_ACCOUNT", defaultAccount},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], v[1])
	}
	return writeFileAtomically(d.envFile(), []byte(b.String()))
}

// writeFileAtomically writes a file, mode 0600, that is there whole or not at all, also after a power loss.
func writeFileAtomically(path string, b []byte) error {
	return writeFile(path, b, func(*os.File) error { return nil })
}

// writeFile is writeFileAtomically, and has the file prepared before it gets its name.
func writeFile(path string, b []byte, prepare func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = prepare(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockFile takes a file for this process until it is closed or the process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, hint(fmt.Errorf("another strongroom dev is using %s", filepath.Dir(path)), "stop it, or use another --dir")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// endpointOf returns the URL that clients use for a loopback address.
func endpointOf(a net.Addr) string { return "http://" + a.String() }

// shellQuote quotes a path for a shell, if it needs quoting.
func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
