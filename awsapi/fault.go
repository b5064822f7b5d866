package awsapi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"strongroom/kms"
)

// violations are the rules that a value breaks, as bits.
type violations uint8

const (
	tooSmall violations = 1 << iota
	tooLarge
	notInEnum
	noMatch
	isNull
)

// AWS repeats values and faults as long as they are. Here both are bounded, so that an answer is not as large as the request that
// earned it: a value to maxEcho bytes, the list of faults to maxFaults and the message to maxMessage.
const (
	maxEcho    = 1024
	maxFaults  = 64
	maxMessage = 8192
)

// faults are the broken rules of a request, in the order of the members in the request type and not of those in the request, so
// that the same mistakes are always told alike.
type faults struct {
	list  []fault
	total int
}

type fault struct {
	order int // of the member in the structure being read
	text  string
}

func (f *faults) reset() {
	clear(f.list)
	f.list, f.total = f.list[:0], 0
}

func (f *faults) add(text string) {
	f.total++
	if len(f.list) < maxFaults {
		f.list = append(f.list, fault{text: text})
	}
}

// place says that the faults from number mark on are those of the member at index order.
func (f *faults) place(mark, order int) {
	for i := mark; i < len(f.list); i++ {
		f.list[i].order = order
	}
}

// sort puts the faults of one structure, from number first on, into the order of its members.
func (f *faults) sort(first int) {
	if len(f.list)-first > 1 {
		slices.SortStableFunc(f.list[first:], func(a, b fault) int { return cmp.Compare(a.order, b.order) })
	}
}

// err returns all faults as one refusal, or nil.
func (f *faults) err() error {
	if f.total == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(f.total) + " validation error")
	if f.total > 1 {
		b.WriteByte('s')
	}
	b.WriteString(" detected: ")
	shown := 0
	for _, x := range f.list {
		if b.Len()+len(x.text) > maxMessage {
			break
		}
		if shown > 0 {
			b.WriteString("; ")
		}
		b.WriteString(x.text)
		shown++
	}
	if shown < f.total {
		b.WriteString("; ...")
	}
	return &kms.Error{Code: kms.Validation, Detail: b.String()}
}

// refuse notes each rule of n that a value breaks. The value itself is as sent, and is left out where AWS leaves it out: of
// blobs, of what is sensitive, and of lists of structures.
func (d *decoder) refuse(n *node, bad violations, value string) {
	said := n.said(value)
	for _, text := range n.rule.broken(bad, n.kind) {
		d.note(said, text)
	}
}

// refuseRange notes an integer that is beyond 32 bits, and therefore beyond any range that the model gives.
func (d *decoder) refuseRange(n *node, large bool, literal string) {
	r := rule{min: bound{true, -1 << 31}, max: bound{true, 1<<31 - 1}}
	bad := tooSmall
	if n.rule.min.set {
		r.min = n.rule.min
	}
	if n.rule.max.set {
		r.max = n.rule.max
	}
	if large {
		bad = tooLarge
	}
	d.note(n.said(literal), r.broken(bad, kindInt)[0])
}

// refuseItems notes that elements of a list or map break rules. Which element it was is not said, and all rules of the elements
// are recited, met or not.
func (d *decoder) refuseItems(n *node, what string, r *rule, bad violations, value string) {
	var all []string
	if r != nil {
		all = r.recite()
	}
	if bad&isNull != 0 {
		all = append(all, "Member must not be null")
	}
	d.note(n.said(value), what+" must satisfy constraint: ["+strings.Join(all, ", ")+"]")
}

// missing notes that a required member is not there.
func (d *decoder) missing(n *node) {
	said := "Value null"
	if n.rule.sensitive {
		said = "Value"
	}
	d.note(said, "Member must not be null")
}

func (d *decoder) note(said, constraint string) {
	if len(d.faults.list) == maxFaults {
		d.faults.total++
		return
	}
	d.faults.add(said + " at '" + d.where() + "' failed to satisfy constraint: " + constraint)
}

// where returns the path of the member being read: tags.1.member.tagKey.
func (d *decoder) where() string {
	var b strings.Builder
	for _, s := range d.path {
		switch {
		case s.name == "":
			fmt.Fprintf(&b, ".%d.member", s.index)
		case b.Len() > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

// said returns how a message begins that speaks of value.
func (n *node) said(value string) string {
	if n.rule.sensitive || n.kind == kindBlob || n.kind == kindList && n.item.kind == kindStruct {
		return "Value"
	}
	return "Value '" + clip(value, maxEcho) + "'"
}

// checkText returns the rules that s breaks.
func (r *rule) checkText(s string) violations {
	var bad violations
	if r.min.set || r.max.set {
		bad = r.checkSize(int64(utf8.RuneCountInString(s)))
	}
	if r.enum != nil && !slices.Contains(r.enum, s) {
		bad |= notInEnum
	}
	if r.pattern != nil && !r.pattern.match(s) {
		bad |= noMatch
	}
	return bad
}

// checkSize returns the bounds that n lies beyond.
func (r *rule) checkSize(n int64) violations {
	switch {
	case r.min.set && n < r.min.n:
		return tooSmall
	case r.max.set && n > r.max.n:
		return tooLarge
	}
	return 0
}

// broken returns the words for each rule in bad.
func (r *rule) broken(bad violations, k kind) []string {
	what := "length"
	if k == kindInt {
		what = "value"
	}
	var texts []string
	if bad&tooSmall != 0 {
		texts = append(texts, fmt.Sprintf("Member must have %s greater than or equal to %d", what, r.min.n))
	}
	if bad&tooLarge != 0 {
		texts = append(texts, fmt.Sprintf("Member must have %s less than or equal to %d", what, r.max.n))
	}
	if bad&notInEnum != 0 {
		texts = append(texts, "Member must satisfy enum value set: ["+strings.Join(r.enum, ", ")+"]")
	}
	if bad&noMatch != 0 {
		texts = append(texts, "Member must satisfy regular expression pattern: "+r.pattern.printed)
	}
	return texts
}

// recite returns the words for all rules of an element, in AWS's order, which has the upper bound first.
func (r *rule) recite() []string {
	var texts []string
	if r.max.set {
		texts = r.broken(tooLarge, kindString)
	}
	if r.min.set {
		texts = append(texts, r.broken(tooSmall, kindString)...)
	}
	if r.enum != nil {
		texts = append(texts, r.broken(notInEnum, kindString)...)
	}
	if r.pattern != nil {
		texts = append(texts, r.broken(noMatch, kindString)...)
	}
	return texts
}

// appendShown adds an element to the text of a list as Java writes it, but no more than a message would show.
func appendShown(shown, value []byte) []byte {
	if len(shown) > maxEcho {
		return shown
	}
	if len(shown) > 0 {
		shown = append(shown, ", "...)
	}
	return append(shown, value[:min(len(value), maxEcho+1)]...)
}

// mapText writes a map as Java does, but no more than a message would show.
func mapText(m map[string]string) string {
	b := []byte("{")
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if len(b) > maxEcho {
			break
		}
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, clip(name, maxEcho)+"="+clip(m[name], maxEcho)...)
	}
	return string(append(b, '}'))
}

// clip returns s, or as much of its beginning as fits n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
