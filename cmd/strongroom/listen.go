package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens the address that a configuration names, with TLS if there is a certificate.
func listen(ctx context.Context, log *slog.Logger, address string, t TLSConfig) (net.Listener, error) {
	var lc net.ListenConfig
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		// A socket that a killed server left behind answers nobody; one that answers belongs to somebody.
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("listen: another process answers on %s", path)
		}
		// A file that is no socket refuses connections too.
		if info, serr := os.Lstat(path); serr == nil && info.Mode().Type() == os.ModeSocket && errors.Is(err, unix.ECONNREFUSED) {
			os.Remove(path)
		}
		// Nobody else may connect between its making and a change of its mode, so it is made with the right one.
		before := unix.Umask(0o117)
		defer unix.Umask(before)
		return lc.Listen(ctx, "unix", path)
	}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if t.Certificate == "" {
		return l, nil
	}
	certificate := &certificate{config: t, log: log}
	if _, err := certificate.get(nil); err != nil {
		l.Close()
		return nil, fmt.Errorf("tls: %w", err)
	}
	return tls.NewListener(scratchListener{l}, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: certificate.get,
	}), nil
}

// A certificate is read again when its files change, so that a renewal needs no restart. If the new files are not usable, the old
// certificate stays.
type certificate struct {
	config TLSConfig
	log    *slog.Logger

	mu     sync.Mutex // held while files are read, which happens once in checkEvery
	loaded *tls.Certificate
	stamp  [2]time.Time // modification times of certificate and key as loaded
	next   time.Time    // when to look again
}

const checkEvery = 10 * time.Second

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Now().Before(c.next) {
		return c.loaded, nil
	}
	c.next = time.Now().Add(checkEvery)
	var stamp [2]time.Time
	for i, path := range []string{c.config.Certificate, c.config.Key} {
		if info, err := os.Stat(path); err == nil {
			stamp[i] = info.ModTime()
		}
	}
	if c.loaded != nil && stamp == c.stamp {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.config.Certificate, c.config.Key)
	if err != nil {
		if c.loaded == nil {
			return nil, err
		}
		c.stamp = stamp // say it once for each change
		c.log.Error("the TLS certificate or its key has changed and cannot be used; the old one stays", "err", err)
		return c.loaded, nil
	}
	c.loaded, c.stamp = &pair, stamp
	c.log.Info("using a TLS certificate", "subject", pair.Leaf.Subject.String(), "expires", pair.Leaf.NotAfter)
	return c.loaded, nil
}
