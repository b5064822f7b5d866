package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// parts are the Go benchmarks of what is on the path of a request, in the order of the path.
var parts = []struct{ name, pkg, benchmark string }{
	{"signature, derived key cached", "awsapi", "VerifySignature"},
	{"decoding of GenerateDataKey", "awsapi", "Decode/operation=GenerateDataKey"},
	{"policies of 0.2 kB", "kms/policy", "Decide/policies=default"},
	{"policies of 92 kB", "kms/policy", "Decide/policies=32kB+10"},
	{"key and policies found, decision", "kms", "Gate/caller=user/c=1"},
	{"session and handle, in one process", "hsm/worker", "Seal/copies=true/in=process/c=1"},
	{"session and handle, in workers", "hsm/worker", "Seal/copies=true/in=workers/c=1"},
	{"session and handle, in workers", "hsm/worker", "Seal/copies=true/in=workers/c=8"},
	{"record encoded and chained", "kms/audit", "Encode"},
	{"record appended and synced", "kms/audit", "Append/sync=true/c=1"},
	{"record appended and synced", "kms/audit", "Append/sync=true/c=32"},
	{"record appended", "kms/audit", "Append/sync=false/c=32"},
	{"encoding of GenerateDataKey", "awsapi", "Encode/operation=GenerateDataKey"},
	{"all but HTTP, Encrypt", "cmd/strongroom", "Request/operation=Encrypt"},
	{"all but HTTP, Decrypt", "cmd/strongroom", "Request/operation=Decrypt"},
	{"all but HTTP, GenerateDataKey", "cmd/strongroom", "Request/operation=GenerateDataKey"},
	{"all but HTTP, GenerateDataKeyPair P256", "cmd/strongroom", "Request/operation=GenerateDataKeyPair"},
}

// measureParts runs the benchmarks, as often as there are rounds.
func (b *bench) measureParts(ctx context.Context) error {
	for _, p := range parts {
		pattern := "^Benchmark" + strings.ReplaceAll(strings.ReplaceAll(p.benchmark, "+", `\+`), "/", "$/^") + "$"
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchmem", "-benchtime", fmt.Sprint(b.length/rounds),
			"-count", strconv.Itoa(rounds), "strongroom/"+p.pkg)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", p.benchmark, err, out)
		}
		r := &row{Name: "part: " + p.name, Unit: nanos}
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			if s, ok := parseBenchmark(lines.Text()); ok {
				r.Samples = append(r.Samples, s)
			}
		}
		if len(r.Samples) != rounds {
			return fmt.Errorf("%s in %s was run %d times, not %d", p.benchmark, p.pkg, len(r.Samples), rounds)
		}
		if _, clients, ok := strings.Cut(p.benchmark, "/c="); ok {
			r.Clients, _ = strconv.Atoi(clients)
		}
		r.Note = fmt.Sprintf("%.0f allocations", r.Samples[0].Allocs)
		b.add(r)
	}
	return nil
}

// parseBenchmark reads a line of `go test -bench`: a name, how often, and values with their units.
func parseBenchmark(line string) (s sample, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
		return s, false
	}
	var err error
	if s.Requests, err = strconv.Atoi(f[1]); err != nil {
		return s, false
	}
	for i := 2; i+1 < len(f); i += 2 {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return s, false
		}
		switch f[i+1] {
		case nanos:
			s.Value = v
		case "allocs/op":
			s.Allocs = v
		}
	}
	return s, s.Value > 0
}
