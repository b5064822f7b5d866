package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// memoryDisk is where files are in memory, so that to sync them takes no time.
const memoryDisk = "/dev/shm"

const auditClients = 32

// measureAudit compares a server whose audit log is on the disk with one whose log is in memory, and which is the same otherwise.
func (b *bench) measureAudit(ctx context.Context) (err error) {
	inMemory, err := os.MkdirTemp(memoryDisk, "strongroom-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(inMemory)
	var rigs []*server
	var keys []accessKey
	for _, name := range []string{"synced", "unsynced"} {
		dir := filepath.Join(b.dir, name)
		if name == "unsynced" {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			if err := os.Symlink(inMemory, filepath.Join(dir, "audit")); err != nil {
				return err
			}
		}
		s, key, err := startDev(ctx, b.program, dir, nil)
		if err != nil {
			return err
		}
		defer s.stop()
		rigs, keys = append(rigs, s), append(keys, key)
	}
	match := regexp.MustCompile(`^(Encrypt|Decrypt|GenerateDataKey)$`)
	onDisk, err := prepare(rigs[0].address, keys[0], match)
	if err != nil {
		return err
	}
	inRAM, err := prepare(rigs[1].address, keys[1], match)
	if err != nil {
		return err
	}
	for i, o := range onDisk {
		var as, bs []slice
		for range rounds {
			for j, side := range []*op{o, inRAM[i]} {
				conns, err := dialAll(rigs[j].address, auditClients)
				if err != nil {
					return err
				}
				part, err := rigs[j].of(side).ask(ctx, conns, keys[j], side, auditClients, b.length/rounds)
				hangUp(conns)
				if err != nil {
					return fmt.Errorf("%s: %w", o.name, err)
				}
				if j == 0 {
					as = append(as, part)
				} else {
					bs = append(bs, part)
				}
			}
		}
		b.add(compare(o.name+", audit log synced", auditClients, as, "log in memory", bs, atLeast(0.80)))
	}
	return nil
}
