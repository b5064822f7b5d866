package search

import "testing"

func TestOthersTicks(t *testing.T) {
	const stat = "cpu  1000 500 200 90000 70 3 40 11 0 0\ncpu0 500 250 100 45000 35 0 20 5 0 0\n"
	if got := othersTicks(stat); got != 1000+200+3+40 {
		t.Errorf("%v ticks are others'", got)
	}
	if got := othersTicks("cpu 1 2"); got != 0 {
		t.Errorf("%v", got)
	}
}
