package kms

import (
	"context"
	"sync"

	"strongroom/hsm"
)

// background is what goes on without anybody waiting for it.
type background struct {
	mu      sync.Mutex
	ended   sync.Cond // that running has fallen to zero
	running int
	single  map[hsm.ID]bool // that once runs something for
	ctx     context.Context
	cancel  context.CancelFunc
}

func (g *background) init() {
	g.ended.L = &g.mu
	g.single = make(map[hsm.ID]bool)
	g.ctx, g.cancel = context.WithCancel(context.Background())
}

// run calls f in a goroutine, with a context that stop ends.
func (g *background) run(f func(context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.start(f)
}

func (g *background) start(f func(context.Context)) {
	g.running++
	ctx := g.ctx
	go func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.running--; g.running == 0 {
				g.ended.Broadcast()
			}
		}()
		f(ctx)
	}()
}

// once is run, but does nothing while an f that was given for the same material runs.
func (g *background) once(material hsm.ID, f func(context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.single[material] {
		return
	}
	g.single[material] = true
	g.start(func(ctx context.Context) {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.single, material)
		}()
		f(ctx)
	})
}

// stop ends the context of what runs, and waits for it.
func (g *background) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancel()
	g.ctx, g.cancel = context.WithCancel(context.Background())
	for g.running > 0 {
		g.ended.Wait()
	}
}
