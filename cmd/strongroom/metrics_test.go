package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom/awsapi"
	"strongroom/kms"
)

// checkPage fails the test unless a page is of the text format 0.0.4 (prometheus.io, "Exposition formats"): each sample belongs to the family before it, no family
// and no sample is there twice, and histograms rise to their count.
func checkPage(t *testing.T, page string) map[string]string {
	t.Helper()
	sample := regexp.MustCompile(`^([a-z_]+)((?:\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})?) ([0-9.e+-]+)$`)
	samples, families := make(map[string]string), make(map[string]string)
	family, described := "", ""
	for line := range strings.Lines(page) {
		line, ok := strings.CutSuffix(line, "\n")
		if !ok {
			t.Errorf("%q has no end", line)
		}
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			described, _, _ = strings.Cut(help, " ")
			continue
		}
		if typ, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(typ, " ")
			if name != described || families[name] != "" || !slices.Contains([]string{"gauge", "counter", "histogram"}, kind) {
				t.Errorf("%q", line)
			}
			if (kind == "counter") != strings.HasSuffix(name, "_total") {
				t.Errorf("%s is a %s", name, kind)
			}
			family, families[name] = name, kind
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("%q is no sample", line)
			continue
		}
		name := m[1]
		if families[family] == "histogram" {
			name = family + strings.TrimPrefix(name, family)
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, end)
			}
		}
		if name != family {
			t.Errorf("%q stands under %s", line, family)
		}
		if _, twice := samples[m[1]+m[2]]; twice {
			t.Errorf("%s%s is there twice", m[1], m[2])
		}
		samples[m[1]+m[2]] = m[3]
	}
	return samples
}

func pageOf(samplers ...sampler) string {
	var p metricsPage
	for _, s := range samplers {
		s(context.Background(), &p)
	}
	return p.String()
}

func TestMetricsPage(t *testing.T) {
	id, err := kms.ParseKeyID("1b5c0e5e-7a53-4bd8-9a2b-5d8c5a0f2f0e")
	if err != nil {
		t.Fatal(err)
	}
	worn := kms.SealBudget{Limit: 1 << 31, Materials: 7, Refused: 3, Most: 3 << 29, Warned: 1, Worn: []kms.WornMaterial{{Key: id, Reserved: 3 << 29}}}
	got := checkPage(t, pageOf(
		processSamples(time.Unix(1_700_000_000, 0)),
		requestSamples(awsapi.NewCounts()),
		budgetSamples(func() kms.SealBudget { return worn }),
		func(_ context.Context, p *metricsPage) {
			p.family("odd", gauge, "A back\\slash, and\na line.")
			p.sample("odd", 1, "label", "a \"quoted\" \\ and\nbroken value")
		}))
	for name, value := range map[string]string{
		"strongroom_nonce_budget_used_ratio":                                                 "0.75",
		"strongroom_nonce_budget_refused_total":                                              "3",
		"strongroom_nonce_budget_materials":                                                  "7",
		"strongroom_nonce_budget_warned_materials":                                           "1",
		`strongroom_nonce_budget_key_used_ratio{key="1b5c0e5e-7a53-4bd8-9a2b-5d8c5a0f2f0e"}`: "0.75",
		"process_start_time_seconds":                                                         "1.7e+09",
		`odd{label="a \"quoted\" \\ and\nbroken value"}`:                                     "1",
	} {
		if got[name] != value {
			t.Errorf("%s is %q, want %s", name, got[name], value)
		}
	}
	if got["process_resident_memory_bytes"] == "" || got["process_open_fds"] == "" {
		t.Error("nothing about memory and files")
	}
}

// A part that hangs is asked once, however many pages are got meanwhile; each page is there in time, and tells of the others.
func TestMetricsOfAHangingPart(t *testing.T) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	s := readySamples(map[string]func(context.Context) error{
		"store": func(context.Context) error { return nil },
		"audit": func(context.Context) error { return errors.New("disk full") },
		"hsm": func(context.Context) error {
			asked <- struct{}{}
			<-release
			return nil
		},
	})
	check := func(store, audit, hsm string) bool {
		got := checkPage(t, pageOf(s))
		return got[`strongroom_ready{part="store"}`] == store && got[`strongroom_ready{part="audit"}`] == audit && got[`strongroom_ready{part="hsm"}`] == hsm
	}
	for range 2 {
		if !check("1", "0", "0") {
			t.Error("while the HSM hangs, something else is said")
		}
	}
	if len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
	close(release)
	for deadline := time.Now().Add(10 * time.Second); !check("1", "0", "1"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is still not there")
		}
	}
}

func TestServeMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serveMetrics(ctx, slog.New(slog.DiscardHandler), l, []sampler{processSamples(time.Now())})
	}()
	for _, test := range []struct {
		method, path string
		status       int
	}{{"GET", "/metrics", 200}, {"HEAD", "/metrics", 200}, {"POST", "/metrics", 405}, {"GET", "/", 404}, {"GET", "/debug/pprof/", 404}} {
		req, err := http.NewRequest(test.method, "http://"+l.Addr().String()+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.status {
			t.Errorf("%s %s: %s", test.method, test.path, resp.Status)
		}
		if test.status == 200 && resp.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("it is %s", resp.Header.Get("Content-Type"))
		}
		if test.status == 200 && test.method == "GET" {
			checkPage(t, string(page))
		}
	}
	stop()
	<-ended
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("it still answers")
	}
}
