package search

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A gauge knows how busy the machine is with other things than searches. It is safe for concurrent use.
type gauge struct {
	mu    sync.Mutex // held while it looks
	last  time.Time  // when it looked
	ticks float64    // what it saw: time of processors, from the start of the machine
	busy  bool
}

const (
	lookEvery  = 250 * time.Millisecond
	tickLength = time.Second / 100 // sysconf(_SC_CLK_TCK), the same on every Linux there is
	busyShare  = 0.25              // of a processor
)

// Room returns how many searches there may be at once now: as many as there are processes, and while the machine has other work, one less, but
// at least one. A processor that runs a search takes on what waits for another one later than one that is idle, so one is left free.
func (p *Processes) Room() int {
	if p.config.Processes > 1 && p.gauge.look() {
		return p.config.Processes - 1
	}
	return p.config.Processes
}

// look reports whether the machine has other work. Where that cannot be told, it has not.
func (g *gauge) look() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	since := time.Since(g.last)
	if since < lookEvery {
		return g.busy
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return false
	}
	ticks := othersTicks(string(stat))
	if since < time.Minute {
		g.busy = (ticks-g.ticks)*tickLength.Seconds() > busyShare*since.Seconds()
	}
	g.last, g.ticks = time.Now(), ticks
	return g.busy
}

// othersTicks returns what is in /proc/stat of work that is not nice, as searches are: user, system, irq and softirq of all processors (proc(5)).
func othersTicks(stat string) (sum float64) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return 0
	}
	for _, i := range []int{1, 3, 6, 7} {
		n, _ := strconv.ParseFloat(f[i], 64)
		sum += n
	}
	return sum
}
