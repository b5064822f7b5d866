package worker

import "testing"

// TestPick has calls that travel together go to one worker while there is room, and others to the one with the least to do.
func TestPick(t *testing.T) {
	first, second := &process{line: &line{}}, &process{line: &line{}}
	d := &Device{ready: []*process{first, second}}
	for _, c := range []struct {
		name         string
		k            kind
		alone, quick bool
		flying       int64 // of the first; the second has one
		want         *process
	}{
		{"data", kindSeal, false, true, most - 1, first},
		{"data, no room", kindSeal, false, true, most, second},
		{"data after a worker ended", kindOpenSealed, true, true, 0, second},
		{"random bytes", kindRandom, false, true, most - 1, first},
		{"data of a slow token", kindSeal, false, false, 2, second},
		{"what is not in line", kindSign, false, true, 2, second},
		{"objects", kindObjects, false, true, 2, first},
	} {
		for _, p := range d.ready {
			if p.line = nil; c.quick {
				p.line = &line{}
			}
		}
		first.flying.Store(c.flying)
		second.flying.Store(1)
		if got, err := d.pick(t.Context(), c.k, c.alone); err != nil || got != c.want {
			t.Errorf("%s: not the worker that was wanted: %v", c.name, err)
		}
	}
}
