package main

import (
	"context"
	"fmt"
	"regexp"
)

// growthMax is what growth is noise, in megabytes: of Go's heap between two collections, of C's arenas, of SQLite's cache.
const growthMax = 8

// measureMemory asks a server whose pool is full for very many things and sees how much memory it has before and after, its processes included.
func (b *bench) measureMemory(ctx context.Context) error {
	s, key, fill, err := b.startFull(ctx, "memory")
	if err != nil {
		return err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^(Encrypt|Decrypt|GenerateDataKey|GenerateDataKeyPair ECC_NIST_P256)$`))
	if err != nil {
		return err
	}
	conns, err := dialAll(s.address, 8)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	mix := func(requests int) error {
		for done := 0; done < requests; {
			for _, o := range ops {
				n := min(20_000, max(1, requests/len(ops)))
				if _, err := s.of(o).ask(ctx, conns, key, o, n, 0); err != nil {
					return err
				}
				done += n
			}
		}
		return nil
	}
	// The heap of the server is as large as it becomes after some 200,000 requests.
	if err := mix(b.choose(20_000, 200_000)); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	before, err := s.rss()
	if err != nil {
		return err
	}
	requests := b.choose(40_000, 1_000_000)
	if err := mix(requests); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	after, err := s.rss()
	if err != nil {
		return err
	}
	b.add(&row{Name: fmt.Sprintf("memory after %d requests, pool full", requests), Clients: len(conns), Unit: megabytes, Against: "before",
		Samples: []sample{{Requests: requests, Value: after, Other: before, Ratio: after / before}}, Bars: []bar{{Of: "growth", Limit: growthMax}},
		Note: fmt.Sprintf("%d pairs of each RSA size are ready", poolSize)})
	return nil
}
