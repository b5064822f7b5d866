package policy

import (
	"strings"
	"unicode/utf8"
)

// A glob is a compiled pattern: "*" stands for any characters, "?" for one. Between the stars are chunks of fixed length, so the leftmost place
// of each is always the right one, and nothing is ever tried twice.
type glob struct {
	chunks []chunk // one if there is no star; else those before, between and after the stars, of which the first and last may be empty
	fold   bool    // the letters A to Z match a to z; the chunks are in lower case
}

// A chunk is text between stars.
type chunk struct {
	pieces []piece
	runes  int // characters that it matches
	plain  bool
	text   string  // of a plain chunk, which has no "?": all of it
	search *search // of a chunk with "?" between two stars
}

// A piece is a number of "?" and the text after them.
type piece struct {
	skip int
	text string
}

// newGlob compiles tokens without variables.
func newGlob(ts []token, fold bool) glob {
	g := glob{fold: fold}
	var c chunk
	end := func(last bool) {
		c.plain = len(c.pieces) == 0 || len(c.pieces) == 1 && c.pieces[0].skip == 0
		if c.plain && len(c.pieces) == 1 {
			c.text = c.pieces[0].text
		}
		for _, p := range c.pieces {
			c.runes += p.skip + utf8.RuneCountInString(p.text)
		}
		// An empty chunk between two stars matches anywhere.
		if c.runes > 0 || len(g.chunks) == 0 || last {
			g.chunks = append(g.chunks, c)
		}
		c = chunk{}
	}
	for _, t := range ts {
		n := len(c.pieces)
		switch t.kind {
		case star:
			end(false)
		case one:
			if n == 0 || c.pieces[n-1].text != "" {
				c.pieces = append(c.pieces, piece{skip: 1})
			} else {
				c.pieces[n-1].skip++
			}
		case literal:
			text := t.text
			if text == "" {
				continue
			}
			if fold {
				text = lowerASCII(text)
			}
			if n == 0 {
				c.pieces = append(c.pieces, piece{text: text})
			} else {
				c.pieces[n-1].text += text
			}
		}
	}
	end(true)
	for i := 1; i < len(g.chunks)-1; i++ {
		if c := &g.chunks[i]; !c.plain {
			c.search = newSearch(c)
		}
	}
	return g
}

// match reports whether the pattern matches the whole of s.
func (g *glob) match(s string) bool {
	first := &g.chunks[0]
	n, ok := first.prefix(s, g.fold)
	if !ok {
		return false
	}
	if len(g.chunks) == 1 {
		return n == len(s)
	}
	s = s[n:]
	last := len(g.chunks) - 1
	for i := 1; i < last; i++ {
		if s, ok = g.chunks[i].cut(s, g.fold); !ok {
			return false
		}
	}
	return g.chunks[last].suffix(s, g.fold)
}

// prefix reports whether s begins with c, and how many bytes of it c matches.
func (c *chunk) prefix(s string, fold bool) (int, bool) {
	if c.plain {
		return len(c.text), hasPrefix(s, c.text, fold)
	}
	rest := s
	for _, p := range c.pieces {
		for range p.skip {
			_, n := utf8.DecodeRuneInString(rest)
			if n == 0 {
				return 0, false
			}
			rest = rest[n:]
		}
		if !hasPrefix(rest, p.text, fold) {
			return 0, false
		}
		rest = rest[len(p.text):]
	}
	return len(s) - len(rest), true
}

// cut finds the first place in s where c matches and returns what is after it.
func (c *chunk) cut(s string, fold bool) (after string, ok bool) {
	switch {
	case !c.plain:
		return c.search.cut(s, fold)
	case !fold:
		_, after, ok = strings.Cut(s, c.text)
		return after, ok
	}
	// Only names of actions are compared without case, and they are short.
	for len(s) >= len(c.text) {
		if hasPrefix(s, c.text, true) {
			return s[len(c.text):], true
		}
		s = s[1:]
	}
	return "", false
}

// suffix reports whether s ends with c.
func (c *chunk) suffix(s string, fold bool) bool {
	if c.plain {
		return len(s) >= len(c.text) && hasPrefix(s[len(s)-len(c.text):], c.text, fold)
	}
	i := len(s)
	for range c.runes {
		_, n := utf8.DecodeLastRuneInString(s[:i])
		if n == 0 {
			return false
		}
		i -= n
	}
	n, ok := c.prefix(s[i:], fold)
	return ok && n == len(s)-i
}

// hasPrefix is strings.HasPrefix, or with fold the same for a prefix in lower case and s in any. Only the letters A to Z fold: the Kelvin
// sign is no k.
func hasPrefix(s, prefix string, fold bool) bool {
	if !fold {
		return strings.HasPrefix(s, prefix)
	}
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// An arn is an ARN taken apart: "arn", partition, service, region, account, and all that follows the fifth colon.
type arn [6]string

// splitARN takes s apart. It reports false if s has fewer than six parts.
func splitARN(s string) (a arn, ok bool) {
	for i := range 5 {
		if a[i], s, ok = strings.Cut(s, ":"); !ok {
			return arn{}, false
		}
	}
	a[5] = s
	return a, true
}

// An arnGlob matches an ARN part by part: the star in "arn:aws:kms:*:111122223333:key/*" stands for a region, and never for more than that.
// That is documented for the ARN operators (IAM User Guide, "Amazon Resource Name (ARN) condition operators") and holds for Resource too.
//
// A pattern of fewer parts, such as "arn:aws:kms:*", is compared as a whole: a star that ends a part "can expand to match beyond the colon
// boundaries" (IAM User Guide, "IAM JSON policy elements: Resource"). No ARN here has more than five colons, so in a pattern with as many no star can.
type arnGlob struct {
	parts [6]glob
	whole *glob // of a pattern of fewer parts; otherwise nil
}

// newARNGlob compiles tokens without variables. It reports false if they have fewer than six parts, and no star at the end of one.
func newARNGlob(ts []token) (*arnGlob, bool) {
	var parts [6][]token
	n := 0
	for _, t := range ts {
		for t.kind == literal && n < 5 {
			before, after, found := strings.Cut(t.text, ":")
			if !found {
				break
			}
			parts[n] = append(parts[n], token{kind: literal, text: before})
			n++
			t.text = after
		}
		parts[n] = append(parts[n], t)
	}
	g := new(arnGlob)
	if n < 5 {
		if !spansParts(ts) {
			return nil, false
		}
		whole := newGlob(ts, false)
		g.whole = &whole
		return g, true
	}
	for i, p := range parts {
		g.parts[i] = newGlob(p, false)
	}
	return g, true
}

// spansParts reports whether ts are "*", or begin like an ARN and have a star at the end of a part.
func spansParts(ts []token) bool {
	if len(ts) == 0 {
		return false
	}
	if ts[0].kind != star && (ts[0].kind != literal || !strings.HasPrefix(ts[0].text, "arn:")) {
		return false
	}
	for i, t := range ts {
		if t.kind == star && (i == len(ts)-1 || ts[i+1].kind == literal && strings.HasPrefix(ts[i+1].text, ":")) {
			return ts[0].kind != star || len(ts) == 1
		}
	}
	return false
}

// match compares the last part first: it is where ARNs of one service differ.
func (g *arnGlob) match(a *arn) bool {
	if g.whole != nil {
		return g.whole.match(strings.Join(a[:], ":"))
	}
	for i := 5; i >= 0; i-- {
		if !g.parts[i].match(a[i]) {
			return false
		}
	}
	return true
}
