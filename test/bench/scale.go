package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A scaleReport is what is measured of a server with a large store, next to one with ten keys.
type scaleReport struct {
	Keys       int         `json:"keys"`
	Grants     int         `json:"grants"`
	Bytes      int64       `json:"storeBytes"`
	FillTime   float64     `json:"fillSeconds"`
	Start      []float64   `json:"startSeconds"` // until the first answer, from a store with ten keys and from the large one
	Cells      []scaleCell `json:"cells"`
	Pages      []scaleCell `json:"pages"`
	RSSAtRest  float64     `json:"rssAtRest"`  // MB, of the server and its children
	RSSTouched float64     `json:"rssTouched"` // after touched keys, and as many grants
	Touched    int         `json:"touched"`
	Cache      string      `json:"cache"` // what is remembered then
}

// A scaleCell is one operation on the large store, and on the small one.
type scaleCell struct {
	What  string  `json:"what"`
	Large latency `json:"large"`
	Small latency `json:"small"`
	Ratio float64 `json:"ratio"` // of the p50
}

// A latency is how long requests took, in milliseconds.
type latency struct {
	P50      float64 `json:"p50Millis"`
	P99      float64 `json:"p99Millis"`
	Requests int     `json:"requests"`
}

func latencyOf(parts []slice) latency {
	var whole slice
	for _, p := range parts {
		whole.latencies = append(whole.latencies, p.latencies...)
	}
	return latency{whole.at(0.50), whole.at(0.99), len(whole.latencies)}
}

const (
	smallKeys   = 10
	scaleRounds = 6
	touched     = 100_000
	scaleSpec   = "ECC_NIST_P256"
)

// A scaled is one of the two servers.
type scaled struct {
	*filled
	*server
	root, user accessKey
	blobs      [][]byte // of the sample, in its order
}

// measureScale measures what p says, and prints it.
func measureScale(ctx context.Context, program string, p *plan, out io.Writer) error {
	dir, err := filepath.Abs(p.scale)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text := out
	if p.format == "json" {
		text = io.Discard
	}
	r, err := scale(ctx, program, dir, p.filling, scaleRounds*time.Duration(p.seconds*float64(time.Second)), text)
	if err != nil || p.format != "json" {
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// scale fills the two stores, which stay in dir, and measures each operation for a time.
func scale(ctx context.Context, program, dir string, f filling, length time.Duration, out io.Writer) (*scaleReport, error) {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	say("\nA store with %d keys and %d grants, in %s (it is filled if it is not there, which takes minutes)", f.Keys, f.Grants, dir)
	open := func(name string, f filling) (*scaled, error) {
		r, err := openFilled(ctx, program, filepath.Join(dir, name), f)
		if err != nil {
			return nil, err
		}
		return &scaled{filled: r}, nil
	}
	small, err := open("small", filling{smallKeys, 10 * smallKeys, smallKeys})
	if err != nil {
		return nil, err
	}
	large, err := open("large", f)
	if err != nil {
		return nil, err
	}
	r := &scaleReport{Keys: f.Keys, Grants: f.Grants, Bytes: large.Bytes, FillTime: large.Seconds, Touched: min(touched, f.Keys)}
	for _, s := range []*scaled{small, large} {
		began := time.Now()
		if err := s.begin(ctx, program); err != nil {
			return nil, err
		}
		defer func() { s.server.stop() }()
		r.Start = append(r.Start, time.Since(began).Seconds())
	}
	for _, s := range []*scaled{small, large} { // which takes a processor and the disk meanwhile
		if err := s.wait(ctx, "strongroom_store_checked 1"); err != nil {
			return nil, err
		}
	}
	if r.RSSAtRest, err = large.rss(); err != nil {
		return nil, err
	}
	say("start %.2f s with ten keys, %.2f s; file %.1f GB; filled in %.0f s", r.Start[0], r.Start[1], float64(r.Bytes)/1e9, r.FillTime)
	for _, s := range []*scaled{small, large} {
		if err := s.encryptSample(); err != nil {
			return nil, err
		}
	}

	say("\n%-66s %9s %9s %9s %9s  %6s", "", "p50 ms", "p99 ms", "ten keys", "p99 ms", "ratio")
	print := func(c scaleCell) {
		say("%-66s %9.3f %9.3f %9.3f %9.3f  %6.3f", c.What, c.Large.P50, c.Large.P99, c.Small.P50, c.Small.P99, c.Ratio)
	}
	for _, o := range []string{"Decrypt", "GenerateDataKeyPair " + scaleSpec} {
		for _, way := range []struct {
			what string
			one  bool // the same key each time
			user bool
		}{
			{"the same key", true, false}, {"the same key, by a grant", true, true},
			{"any of thousands of keys", false, false}, {"any of thousands of keys, by a grant", false, true},
		} {
			c, err := compareStores(ctx, o+", "+way.what, large, small, false, length, func(s *scaled) [][]byte { return s.requests(o, way.one, way.user) })
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.What, err)
			}
			print(c)
			r.Cells = append(r.Cells, c)
		}
	}
	// While a grant is made each second, on any key.
	changing, stop := context.WithCancel(ctx)
	changed := make(chan error, 1)
	go func() { changed <- large.keepChanging(changing) }()
	c, err := compareStores(ctx, "Decrypt, any of thousands of keys, beside changes", large, small, false, length, func(s *scaled) [][]byte { return s.requests("Decrypt", false, true) })
	stop()
	if cerr := <-changed; err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	print(c)
	r.Cells = append(r.Cells, c)

	for _, list := range []string{"ListKeys", "ListAliases", "ListGrants"} {
		c, err := compareStores(ctx, list+", a page in the middle", large, small, false, length/4, func(s *scaled) [][]byte {
			request, lerr := s.middle(list)
			if lerr != nil {
				err = lerr
			}
			return [][]byte{request}
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", list, err)
		}
		print(c)
		r.Pages = append(r.Pages, c)
	}

	if err := large.touch(r.Touched); err != nil {
		return nil, err
	}
	if r.RSSTouched, err = large.rss(); err != nil {
		return nil, err
	}
	if r.Cache, err = large.cache(ctx); err != nil {
		return nil, err
	}

	// Keys that are not remembered, by a server that remembers next to nothing.
	large.server.stop()
	if err := large.begin(ctx, program, "--cache", "1"); err != nil {
		return nil, err
	}
	if err := large.wait(ctx, "strongroom_store_checked 1"); err != nil {
		return nil, err
	}
	for _, user := range []bool{false, true} {
		what := "Decrypt, keys that are not remembered"
		if user {
			what += ", by a grant"
		}
		c, err := compareStores(ctx, what, large, small, true, length, func(s *scaled) [][]byte { return s.requests("Decrypt", false, user) })
		if err != nil {
			return nil, err
		}
		print(c)
		r.Cells = append(r.Cells, c)
	}
	say("\nresident memory: %.0f MB at rest, %.0f MB after %d keys, each by a policy and by a grant\n%s", r.RSSAtRest, r.RSSTouched, r.Touched, r.Cache)
	return r, nil
}

// begin starts the server and waits for its first good answer.
func (s *scaled) begin(ctx context.Context, program string, flags ...string) (err error) {
	if s.server, s.root, err = startDev(ctx, program, s.dir, nil, append(flags, "--metrics", "127.0.0.1:0")...); err != nil {
		return err
	}
	s.user = accessKey{id: s.AccessKey.ID, secret: s.AccessKey.Secret, region: s.root.region}
	c, err := dial(s.address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	_, err = c.do(s.root.request(s.address, "/", "GenerateDataKey", s.body(map[string]any{"KeyId": s.Sample[0], "KeySpec": "AES_256"})))
	return err
}

func (s *scaled) body(in any) []byte {
	b, err := json.Marshal(in)
	if err != nil {
		panic(err) // maps of strings
	}
	return b
}

var scaleContext = map[string]string{"purpose": "bench"}

// encryptSample makes a ciphertext under each key of the sample.
func (s *scaled) encryptSample() error {
	s.blobs = make([][]byte, len(s.Sample))
	return together(4, len(s.Sample), func() (func(int) error, error) {
		c, err := dial(s.address)
		return func(i int) error {
			c.SetDeadline(time.Now().Add(patience))
			in := map[string]any{"KeyId": s.Sample[i], "Plaintext": bytes.Repeat([]byte{0x42}, 32), "EncryptionContext": scaleContext}
			answer, err := c.do(s.root.request(s.address, "/", "Encrypt", s.body(in)))
			if err != nil {
				return err
			}
			var said struct{ CiphertextBlob []byte }
			err = json.Unmarshal(answer, &said)
			s.blobs[i] = said.CiphertextBlob
			return err
		}, err
	})
}

// requests returns requests for an operation with one key of the sample, or with each in any order, as the root or as the user, whom only grants allow anything.
func (s *scaled) requests(o string, one, user bool) [][]byte {
	who := s.root
	if user {
		who = s.user
	}
	order := rand.Perm(len(s.Sample))
	if one {
		order = []int{len(s.Sample) / 2}
	}
	operation, spec, _ := strings.Cut(o, " ")
	var all [][]byte
	for _, i := range order {
		in := map[string]any{"EncryptionContext": scaleContext}
		if operation == "Decrypt" {
			in["CiphertextBlob"] = s.blobs[i]
		} else {
			in["KeyId"], in["KeyPairSpec"] = s.Sample[i], spec
		}
		all = append(all, who.request(s.address, "/", operation, s.body(in)))
	}
	return all
}

// compare has both servers answer the same requests, in turns, once each of them was answered before, unless they are to be cold.
func compareStores(ctx context.Context, what string, large, small *scaled, cold bool, length time.Duration, requests func(*scaled) [][]byte) (scaleCell, error) {
	cell := scaleCell{What: what}
	parts := make(map[*scaled][]slice)
	for _, s := range []*scaled{large, small} {
		if !cold {
			if _, err := s.ask(ctx, requests(s), 0); err != nil {
				return cell, err
			}
		}
	}
	for range scaleRounds {
		for _, s := range []*scaled{large, small} {
			part, err := s.ask(ctx, requests(s), length/scaleRounds)
			if err != nil {
				return cell, err
			}
			parts[s] = append(parts[s], part)
		}
	}
	cell.Large, cell.Small = latencyOf(parts[large]), latencyOf(parts[small])
	cell.Ratio = cell.Large.P50 / cell.Small.P50
	return cell, nil
}

// ask sends requests over one connection, one after the other: for a time, again and again, or for no time each of them once.
func (s *scaled) ask(ctx context.Context, requests [][]byte, length time.Duration) (slice, error) {
	conns, err := dialAll(s.address, 1)
	if err != nil {
		return slice{}, err
	}
	c := conns[0]
	defer c.Close()
	c.SetDeadline(time.Now().Add(length + patience))
	var part slice
	start := time.Now()
	for i := 0; length > 0 && time.Since(start) < length || length == 0 && i < len(requests); i++ {
		began := time.Now()
		if _, err := c.do(requests[i%len(requests)]); err != nil {
			return part, err
		}
		part.latencies = append(part.latencies, time.Since(began))
	}
	part.elapsed = time.Since(start)
	return part, ctx.Err()
}

// keepChanging makes a grant each second, until ctx ends.
func (s *scaled) keepChanging(ctx context.Context) error {
	c, err := dial(s.address)
	if err != nil {
		return err
	}
	defer c.Close()
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		c.SetDeadline(time.Now().Add(patience))
		id := s.Sample[rand.IntN(len(s.Sample))]
		if slices.Contains(s.Crowded, id) {
			continue // it can have no more
		}
		in := map[string]any{"KeyId": id, "GranteePrincipal": s.User, "Operations": []string{"Encrypt"}}
		if _, err := c.do(s.root.request(s.address, "/", "CreateGrant", s.body(in))); err != nil {
			return err
		}
	}
}

// middle returns a request for a page of a list that is about in its middle: the one after as many as a few steps reach, since positions are the server's own.
func (s *scaled) middle(list string) ([]byte, error) {
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	in := map[string]any{"Limit": 100}
	steps := min(s.Keys/2/100, 20)
	switch list {
	case "ListKeys":
		steps = min(s.Keys/2/100, 500)
	case "ListGrants":
		in["KeyId"], steps = s.Sample[0], 0
		if len(s.Crowded) > 0 {
			in["KeyId"], steps = s.Crowded[0], crowd/2/100
		}
	case "ListAliases":
		steps = min(s.Keys/aliasEach/2/100, 500)
	}
	for range steps {
		answer, err := c.do(s.root.request(s.address, "/", list, s.body(in)))
		var page struct{ NextMarker string }
		if err == nil {
			err = json.Unmarshal(answer, &page)
		}
		if err != nil {
			return nil, err
		}
		if page.NextMarker == "" {
			break
		}
		in["Marker"] = page.NextMarker
	}
	in["Limit"] = 10
	return s.root.request(s.address, "/", list, s.body(in)), nil
}

// touch has some thousand keys described, each as the root, whom the key's policy allows it, and as the user, whom a grant may.
func (s *scaled) touch(n int) error {
	ids, err := s.list(n)
	if err != nil {
		return err
	}
	return together(2, len(ids), func() (func(int) error, error) {
		c, err := dial(s.address)
		return func(i int) error {
			c.SetDeadline(time.Now().Add(patience))
			id := ids[i]
			if _, err := c.do(s.root.request(s.address, "/", "DescribeKey", s.body(map[string]string{"KeyId": id}))); err != nil {
				return err
			}
			_, err := c.do(s.user.request(s.address, "/", "DescribeKey", s.body(map[string]string{"KeyId": id})))
			if serr, ok := err.(statusError); ok && strings.Contains(serr.body, "AccessDenied") {
				return nil // there was no grant, which was looked for
			}
			return err
		}, err
	})
}

// list returns the ids of the first n keys.
func (s *scaled) list(n int) ([]string, error) {
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	var ids []string
	in := map[string]any{"Limit": 400} // an answer of more would be too large for this client
	for len(ids) < n {
		answer, err := c.do(s.root.request(s.address, "/", "ListKeys", s.body(in)))
		var page struct {
			Keys       []struct{ KeyId string }
			NextMarker string
		}
		if err == nil {
			err = json.Unmarshal(answer, &page)
		}
		if err != nil {
			return nil, err
		}
		for _, k := range page.Keys {
			ids = append(ids, k.KeyId)
		}
		if page.NextMarker == "" {
			break
		}
		in["Marker"] = page.NextMarker
	}
	return ids[:min(n, len(ids))], nil
}

// page returns the metrics.
func (s *scaled) page(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.metrics, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	return string(page), err
}

// wait waits until the metrics have a line.
func (s *scaled) wait(ctx context.Context, line string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second / 2) {
		page, err := s.page(ctx)
		if err != nil || strings.Contains(page, "\n"+line+"\n") {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the metrics do not say %q", line)
		}
	}
}

// cache returns what the metrics say of what is remembered.
func (s *scaled) cache(ctx context.Context) (string, error) {
	page, err := s.page(ctx)
	if err != nil {
		return "", err
	}
	var some []string
	for line := range strings.Lines(page) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		name, of, labelled := strings.Cut(name, `{of="`)
		if ok && labelled && (name == "strongroom_cache_bytes" || name == "strongroom_cache_entries") {
			some = append(some, strings.TrimPrefix(name, "strongroom_cache_")+" of "+strings.TrimSuffix(of, `"`)+" "+value)
		}
	}
	slices.Sort(some)
	return strings.Join(some, ", "), nil
}
