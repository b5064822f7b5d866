package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	poolSize   = 16 // of each spec; three quarters are for one principal
	fillWithin = 10 * time.Minute

	costSpec    = "RSA_2048"
	costPairs   = 40 // in a round: how long a search takes is luck
	costClients = 4

	besideClients  = 8
	besideSearches = 32
	besideRounds   = 5
	besideLeast    = 3 * time.Second
)

// startFull starts a server with pairs of every size ready, and returns what waits until they all are.
func (b *bench) startFull(ctx context.Context, name string) (s *server, key accessKey, fill func() error, err error) {
	s, key, err = startDev(ctx, b.program, filepath.Join(b.dir, name), nil, "--pool", strconv.Itoa(poolSize), "--metrics", "127.0.0.1:0")
	if err != nil {
		return nil, key, nil, err
	}
	fill = func() error {
		for deadline := time.Now().Add(fillWithin); ; time.Sleep(200 * time.Millisecond) {
			ready, err := s.samples("strongroom_pool_ready")
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(ready, func(n float64) bool { return n < poolSize }) {
				return nil
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return fmt.Errorf("the pool has %v", ready)
			}
		}
	}
	return s, key, fill, nil
}

// measureFull asks for one pair after another, fewer than there are ready, each time that all are. What the disk does meanwhile, by itself, is measured as often.
func (b *bench) measureFull(ctx context.Context) error {
	began := time.Now()
	s, key, fill, err := b.startFull(ctx, "pool")
	if err != nil {
		return err
	}
	defer s.stop()
	if err := fill(); err != nil {
		return err
	}
	b.add(&row{Name: "RSA pairs from a full pool, time to fill it", Unit: "s", Samples: []sample{{Value: time.Since(began).Seconds()}},
		Note: fmt.Sprintf("%d of each size", poolSize)})
	ops, err := prepare(s.address, key, regexp.MustCompile(`^GenerateDataKeyPair RSA`))
	if err != nil {
		return err
	}
	conns, err := dialAll(s.address, 1)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	d, err := openDisk(filepath.Join(b.dir, "beside-pool"), true)
	if err != nil {
		return err
	}
	defer d.file.Close()
	parts := make([][]slice, len(ops))
	var writes []slice
	before, err := s.samples("strongroom_pool_misses_total")
	if err != nil {
		return err
	}
	for range b.choose(4, 15) {
		if err := fill(); err != nil {
			return err
		}
		for i, o := range ops {
			part, err := s.of(o).ask(ctx, conns, key, o, poolSize/2, 0)
			if err != nil {
				return err
			}
			parts[i] = append(parts[i], part)
			if part, err = d.again(poolSize / 2); err != nil {
				return err
			}
			writes = append(writes, part)
		}
	}
	after, err := s.samples("strongroom_pool_misses_total")
	if err != nil {
		return err
	}
	for i, o := range ops {
		r := compare("RSA pairs from a full pool, "+strings.TrimPrefix(o.name, "GenerateDataKeyPair "), 1, parts[i], "", nil,
			[]bar{{Of: "p50", Limit: 3}, {Of: "p99", Limit: 10}})
		if misses := after[i] - before[i]; misses > 0 {
			r.Note = fmt.Sprintf("%.0f found nothing ready", misses)
		}
		b.add(r)
	}
	b.add(compare("disk alone, at the same times", 1, writes, "", nil, nil))
	return nil
}

// measureCPU compares what the server and its processes take for a pair with what crypto/rsa takes alone, in turns.
func (b *bench) measureCPU(ctx context.Context) error {
	s, key, err := startDev(ctx, b.program, filepath.Join(b.dir, "cost"), nil)
	if err != nil {
		return err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^GenerateDataKeyPair `+costSpec+`$`))
	if err != nil {
		return err
	}
	conns, err := dialAll(s.address, costClients)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	r := &row{Name: "CPU of an RSA pair, no pool, " + costSpec, Clients: costClients, Unit: millis, Against: "crypto/rsa alone", Bars: atMost(1.1), luck: true}
	for range b.choose(6, 20) {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		part, err := s.of(ops[0]).ask(ctx, conns, key, ops[0], costPairs, 0)
		if err != nil {
			return err
		}
		after, err := s.cpu()
		if err != nil {
			return err
		}
		bare, err := bareRSA(ctx, 2048, costPairs)
		if err != nil {
			return err
		}
		n := len(part.latencies)
		served := (after - before) * 1000 / float64(n)
		r.Samples = append(r.Samples, sample{Requests: n, Value: served, Other: bare, Ratio: served / bare})
	}
	b.add(r)
	return nil
}

// measureBeside compares Decrypt alone with Decrypt while many clients want RSA_4096 pairs, in turns.
func (b *bench) measureBeside(ctx context.Context) error {
	s, key, err := startDev(ctx, b.program, filepath.Join(b.dir, "beside"), nil)
	if err != nil {
		return err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^(Decrypt|GenerateDataKeyPair RSA_4096)$`))
	if err != nil {
		return err
	}
	decrypt, pair := ops[0], ops[1]
	conns, err := dialAll(s.address, besideClients)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	r := &row{Name: fmt.Sprintf("Decrypt p99, %d clients wait for RSA_4096", besideSearches), Clients: besideClients, Unit: millis, Against: "p99 alone", Bars: atMost(2)}
	length := max(besideLeast, b.length)
	var all []time.Duration
	made, searched := 0, 0.0
	for range besideRounds {
		alone, err := s.of(decrypt).ask(ctx, conns, key, decrypt, besideClients, length)
		if err != nil {
			return err
		}
		began := time.Now()
		stop, err := s.search(key, pair)
		if err != nil {
			return err
		}
		time.Sleep(time.Second) // until all of them wait
		part, err := s.of(decrypt).ask(ctx, conns, key, decrypt, besideClients, length)
		made += stop()
		searched += time.Since(began).Seconds()
		if err != nil {
			return err
		}
		all = append(all, part.latencies...)
		r.Samples = append(r.Samples, sample{Requests: len(part.latencies), Value: part.at(0.99), Other: alone.at(0.99), Ratio: part.at(0.99) / alone.at(0.99)})
		time.Sleep(2 * time.Second) // until what was begun has ended
	}
	r.P50, r.P99 = slice{latencies: all}.at(0.50), slice{latencies: all}.at(0.99)
	r.Note = fmt.Sprintf("%.2f pairs/s meanwhile", float64(made)/searched)
	b.add(r)
	return nil
}

// search has many clients want pairs until stop, which returns how many they got.
func (s *server) search(key accessKey, pair *op) (stop func() int, err error) {
	conns, err := dialAll(s.address, besideSearches)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	counts := make([]int, len(conns))
	request := key.request(s.address, "/", pair.target, pair.body)
	for i, c := range conns {
		c.SetDeadline(time.Time{})
		wg.Go(func() {
			for ; ; counts[i]++ {
				if _, err := c.do(request); err != nil {
					return // it was hung up
				}
			}
		})
	}
	return func() (sum int) {
		hangUp(conns)
		wg.Wait()
		for _, n := range counts {
			sum += n
		}
		return sum
	}, nil
}
