package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A scaled is one of the two servers.
type scaled struct {
	*filled
	*server
	root, user accessKey
	blobs      [][]byte // of the sample, in its order
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
