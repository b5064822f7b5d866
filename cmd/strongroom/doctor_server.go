package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// readyWait is how long a server may not be ready before that is a finding.
const readyWait = 6 * time.Second

// examineServer asks the server that runs whether it is ready, and looks at what the system says of its process.
func (d *doctor) examineServer(ctx context.Context, p *part) func() {
	address := d.address()
	if !d.served {
		p.skip("no server runs on this store")
		if address != "" && d.config != nil {
			if c, err := d.dial(ctx, address); err == nil {
				c.Close()
				p.warn("address-taken", address, "another process listens there", "serve cannot", "stop it, or change listen")
			}
		}
		return nil
	}
	who := "a process that is not known here, perhaps in another container,"
	if d.server != 0 {
		who = fmt.Sprintf("process %d", d.server)
		d.examineProcess(p)
	}
	if address == "" {
		p.skip("%s has claimed the store, but does not answer yet: there is no %s", who, d.rig.envFile())
		return nil
	}
	word, err := d.ready(ctx, address)
	for began := time.Now(); (err != nil || word != "ready") && time.Since(began) < readyWait; word, err = d.ready(ctx, address) {
		select { // it may just start, or stop
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
		if served, _, serr := d.whoServes(); serr == nil && !served {
			p.skip("%s stopped serving a moment ago", who)
			return func() { d.served = false }
		}
	}
	switch {
	case err != nil:
		p.warn("server-silent", address, fmt.Sprintf("%s has claimed the store and does not answer: %v", who, err), "clients get no answer either",
			"if it did not just start or is not just stopping, look in its log")
	case word != "ready":
		p.fail("server-not-ready", address, fmt.Sprintf("%s says that it is not ready: %s", who, word), "requests that need what is missing are refused", "look in the server's log for why")
	default:
		p.ok("%s answers on %s and is ready", who, address)
	}
	return nil
}

// address returns where the server listens, as configured or, for a rig, as it says; "" if a rig does not say.
func (d *doctor) address() string {
	if d.config != nil {
		return d.config.Listen
	}
	b, err := os.ReadFile(d.rig.envFile())
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if url, ok := strings.CutPrefix(strings.TrimSpace(line), "export AWS_ENDPOINT_URL_KMS=http://"); ok {
			return url
		}
	}
	return ""
}

func (d *doctor) dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return dialer.DialContext(ctx, "unix", path)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
}

// ready returns what the server says of itself.
func (d *doctor) ready(ctx context.Context, address string) (string, error) {
	client := &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx, address) },
		// Nothing is sent, and nothing of what comes back is believed but one word. Who has the certificate's name is no matter here.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	scheme := "http"
	if d.config != nil && d.config.TLS.Certificate != "" {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://strongroom/readyz", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	return strings.TrimSpace(string(b)), err
}

// examineProcess sees that the memory of the server stays out of core dumps.
func (d *doctor) examineProcess(p *part) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.server))
	if err != nil {
		p.skip("the limits of process %d cannot be read: %v", d.server, withoutPath(err))
		return
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "Max core file size")
		if !ok {
			continue
		}
		if f := strings.Fields(rest); len(f) > 1 && (f[0] != "0" || f[1] != "0") {
			p.warn("core-dumps", fmt.Sprintf("process %d", d.server), "may leave a core dump", "private keys and data keys that are in its memory then would lie on the disk",
				"see in the server's log why it could not switch core dumps off, and set LimitCORE=0 in its unit")
			return
		}
		p.ok("process %d leaves no core dump", d.server)
	}
}
