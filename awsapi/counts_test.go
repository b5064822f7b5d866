package awsapi

import (
	"slices"
	"sync"
	"testing"
	"time"

	"strongroom/kms"
)

func TestCounts(t *testing.T) {
	c := NewCounts()
	if got := c.Operations(); len(got) != 0 {
		t.Errorf("before anything: %+v", got)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				c.add("Encrypt", OutcomeOK, 500*time.Microsecond)
				c.add("Encrypt", "DisabledException", time.Hour)
				c.add("Encrypt", "NoSuchException", 3*time.Millisecond)
				c.add("NoSuchOperation", "UnknownOperationException", 0)
			}
		})
	}
	all.Wait()
	got := c.Operations()
	if len(got) != 2 || got[0].Operation != "Encrypt" || got[1].Operation != OperationUnknown {
		t.Fatalf("%+v", got)
	}
	if want := []OutcomeCount{{"DisabledException", 400}, {"KMSInternalException", 400}, {"ok", 400}}; !slices.Equal(got[0].Outcomes, want) {
		t.Errorf("%+v, want %+v", got[0].Outcomes, want)
	}
	want := make([]int64, len(LatencyBounds())+1)
	want[0], want[slices.Index(LatencyBounds(), 5*time.Millisecond)], want[len(want)-1] = 400, 400, 400
	if !slices.Equal(got[0].Latency, want) {
		t.Errorf("latencies %v, want %v", got[0].Latency, want)
	}
	if want := 400 * (time.Hour + 3500*time.Microsecond); got[0].Total != want {
		t.Errorf("in all %v, want %v", got[0].Total, want)
	}
	if !slices.IsSorted(LatencyBounds()) {
		t.Error("the bounds do not rise")
	}
}

// Every refusal that can be answered has its counter.
func TestCountsKnowEveryOutcome(t *testing.T) {
	c := NewCounts()
	for _, code := range kms.Codes() {
		if _, ok := c.outcome[forms[code].name]; !ok {
			t.Errorf("%v is not counted by its name", code)
		}
	}
	for name := range c.operations {
		if name != OperationUnknown && operations[name].run == nil && stsOperations[name].run == nil {
			t.Errorf("%s is no operation", name)
		}
	}
}

func BenchmarkCount(b *testing.B) {
	c := NewCounts()
	b.ReportAllocs()
	for b.Loop() {
		c.add("Encrypt", OutcomeOK, 300*time.Microsecond)
	}
}
