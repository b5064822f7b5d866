package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
