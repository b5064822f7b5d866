package policy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The model is a second implementation of the decision, written from the IAM User Guide and the AWS KMS Developer Guide without regard to the
// first: it reads the JSON again for every question, compiles nothing, and shares with the package only the types of question and answer. It is
// slow and takes only documents that Parse accepts.

// A written is a policy's text under its name.
type written struct {
	name, text string
}

// facts are the condition keys of a request, in lower case.
type facts map[string][]string

func (f facts) Values(key string) ([]string, bool) {
	v, ok := f[key]
	return v, ok
}

func modelDecide(q Question, key *written, identity []written, f facts) Decision {
	var d Decision
	var keyStatements []map[string]any
	var keyVersion string
	if key != nil {
		keyVersion, keyStatements = modelRead(key.text)
	}

	// "An explicit deny in any policy overrides any allows."
	for i, s := range keyStatements {
		if s["Effect"] == "Deny" && modelNamed(s, q) != "" && modelRest(s, q, f, keyVersion) {
			return Decision{Explicit: true, Reason: DeniedByKeyPolicy, Document: "key policy", Statement: modelName(s, i)}
		}
	}
	allowDocument, allowStatement := "", ""
	for _, w := range identity {
		version, statements := modelRead(w.text)
		for i, s := range statements {
			if !modelRest(s, q, f, version) {
				continue
			}
			if s["Effect"] == "Deny" {
				return Decision{Explicit: true, Reason: DeniedByIdentityPolicy, Document: w.name, Statement: modelName(s, i)}
			}
			if !d.IdentityAllows {
				d.IdentityAllows = true
				allowDocument, allowStatement = w.name, modelName(s, i)
			}
		}
	}
	if modelIsRoot(q) {
		d.IdentityAllows = true
	}

	direct, delegating := "", ""
	for i, s := range keyStatements {
		if s["Effect"] != "Allow" || !modelRest(s, q, f, keyVersion) {
			continue
		}
		how := modelNamed(s, q)
		if strings.Contains(how, "itself") && direct == "" {
			direct = modelName(s, i)
		}
		if strings.Contains(how, "account") {
			d.KeyDelegates = true
			if delegating == "" {
				delegating = modelName(s, i)
			}
		}
	}

	allowed := func(r Reason, document, statement string) Decision {
		d.Allowed, d.Reason, d.Document, d.Statement = true, r, document, statement
		return d
	}
	refused := func(r Reason) Decision {
		d.Reason = r
		return d
	}
	if key == nil {
		if d.IdentityAllows {
			return allowed(AllowedByIdentityPolicy, allowDocument, allowStatement)
		}
		return refused(NoIdentityPolicyAllows)
	}
	if q.Caller.Account == q.Owner {
		if direct != "" {
			return allowed(AllowedByKeyPolicy, "key policy", direct)
		}
		if !d.KeyDelegates {
			return refused(NoKeyPolicyAllows)
		}
		if !d.IdentityAllows {
			return refused(NoIdentityPolicyAllows)
		}
		return allowed(AllowedByIdentityPolicy, allowDocument, allowStatement)
	}
	if direct == "" && !d.KeyDelegates {
		return refused(NoKeyPolicyAllows)
	}
	if !d.IdentityAllows {
		return refused(NoIdentityPolicyAllows)
	}
	if direct == "" {
		direct = delegating
	}
	return allowed(AllowedByBoth, "key policy", direct)
}

func modelRead(text string) (version string, statements []map[string]any) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var document map[string]any
	if err := dec.Decode(&document); err != nil {
		panic(err)
	}
	version, _ = document["Version"].(string)
	for _, s := range modelList(document["Statement"]) {
		statements = append(statements, s.(map[string]any))
	}
	return version, statements
}

func modelList(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}

func modelName(s map[string]any, i int) string {
	if sid, _ := s["Sid"].(string); sid != "" {
		return sid
	}
	return "#" + strconv.Itoa(i+1)
}

func modelIsRoot(q Question) bool {
	return regexp.MustCompile(`^arn:[a-z-]+:iam::\d{12}:root$`).MatchString(q.Caller.ARN)
}

// modelNamed returns how the statement is about the caller: "itself", "account", both, or "".
func modelNamed(s map[string]any, q Question) string {
	element, not := s["Principal"], false
	if element == nil {
		element, not = s["NotPrincipal"], true
	}
	var entries []any
	switch e := element.(type) {
	case string:
		entries = []any{e}
	case map[string]any:
		if e["AWS"] != nil {
			entries = modelList(e["AWS"])
		}
	}
	partition := strings.Split(q.Caller.ARN, ":")[1]
	itself, account := false, false
	for _, e := range entries {
		if e == "*" || e == q.Caller.ARN {
			itself = true
		}
		if e == q.Caller.Account || e == "arn:"+partition+":iam::"+q.Caller.Account+":root" {
			account = true
		}
		if q.Caller.Role != "" && e == q.Caller.Role {
			itself = true
		}
	}
	if account && modelIsRoot(q) {
		itself = true
	}
	if not {
		excepted := itself
		if s["Effect"] == "Allow" && account {
			excepted = true
		}
		if excepted {
			return ""
		}
		return "itself"
	}
	how := ""
	if itself {
		how += "itself"
	}
	if account {
		how += "account"
	}
	return how
}

// modelRest reports whether everything of the statement but its principal matches.
func modelRest(s map[string]any, q Question, f facts, version string) bool {
	return modelAction(s, q) && modelResource(s, q, f, version) && modelCondition(s, f, version)
}

func modelAction(s map[string]any, q Question) bool {
	list, not := s["Action"], false
	if list == nil {
		list, not = s["NotAction"], true
	}
	if list == nil {
		return false
	}
	found := false
	for _, a := range modelList(list) {
		if modelGlob(modelMark(strings.ToLower(a.(string)), nil, true), strings.ToLower(q.Action)) {
			found = true
		}
	}
	return found != not
}

func modelResource(s map[string]any, q Question, f facts, version string) bool {
	list, not := s["Resource"], false
	if list == nil {
		list, not = s["NotResource"], true
	}
	if list == nil {
		return false
	}
	found, unknown := false, false
	for _, r := range modelList(list) {
		if r == "*" {
			found = true
			continue
		}
		p, ok := modelSubstitute(r.(string), f, version, true)
		if ok && modelARN(p, q.Resource) {
			found = true
		}
		unknown = unknown || !ok
	}
	if not && !found && unknown && strings.Count(q.Resource, ":") >= 5 {
		return s["Effect"] == "Deny"
	}
	return found != not
}

// A marked is a character of a pattern: a wildcard, or itself.
type marked struct {
	c    rune
	wild bool
}

func modelMark(s string, to []marked, wildcards bool) []marked {
	for _, c := range s {
		to = append(to, marked{c, wildcards && (c == '*' || c == '?')})
	}
	return to
}

var (
	modelSpecial  = regexp.MustCompile(`^\$\{([*?$])\}`)
	modelVariable = regexp.MustCompile(`^\$\{ *([^,}]+?) *(?:, *('[^']*') *)?\}`)
)

// modelSubstitute puts the request's values in place of policy variables.
func modelSubstitute(s string, f facts, version string, wildcards bool) ([]marked, bool) {
	if version != "2012-10-17" {
		return modelMark(s, nil, wildcards), true
	}
	var out []marked
	for s != "" {
		if m := modelSpecial.FindStringSubmatch(s); m != nil {
			out = modelMark(m[1], out, false)
			s = s[len(m[0]):]
			continue
		}
		if m := modelVariable.FindStringSubmatch(s); m != nil {
			values := f[strings.ToLower(m[1])]
			switch {
			case len(values) == 1:
				out = modelMark(values[0], out, false)
			case len(values) == 0 && m[2] != "":
				out = modelMark(strings.Trim(m[2], "'"), out, false)
			default:
				return nil, false
			}
			s = s[len(m[0]):]
			continue
		}
		c := []rune(s)[0]
		out = modelMark(string(c), out, wildcards)
		s = s[len(string(c)):]
	}
	return out, true
}

// modelGlob fills the table of which first characters of the pattern match which first characters of the value.
func modelGlob(p []marked, value string) bool {
	v := []rune(value)
	table := make([][]bool, len(p)+1)
	for i := range table {
		table[i] = make([]bool, len(v)+1)
	}
	table[0][0] = true
	for i, m := range p {
		for j := 0; j <= len(v); j++ {
			switch {
			case m.wild && m.c == '*':
				table[i+1][j] = table[i][j] || j > 0 && table[i+1][j-1]
			case j > 0 && (m.wild || m.c == v[j-1]):
				table[i+1][j] = table[i][j-1]
			}
		}
	}
	return table[len(p)][len(v)]
}

// modelARN compares six parts, each on its own.
func modelARN(p []marked, value string) bool {
	parts := [][]marked{nil}
	for _, m := range p {
		if m.c == ':' && len(parts) < 6 {
			parts = append(parts, nil)
			continue
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], m)
	}
	values := strings.SplitN(value, ":", 6)
	if len(values) != 6 {
		return false
	}
	if len(parts) < 6 { // a star at the end of a part goes beyond it
		return modelGlob(p, value)
	}
	for i := range parts {
		if !modelGlob(parts[i], values[i]) {
			return false
		}
	}
	return true
}

func modelCondition(s map[string]any, f facts, version string) bool {
	condition, _ := s["Condition"].(map[string]any)
	for operator, tests := range condition {
		for key, wanted := range tests.(map[string]any) {
			if !modelTest(operator, strings.ToLower(key), modelList(wanted), f, version, s["Effect"] == "Deny") {
				return false
			}
		}
	}
	return true
}

func modelTest(operator, key string, wanted []any, f facts, version string, deny bool) bool {
	var texts []string
	for _, w := range wanted {
		switch w := w.(type) {
		case string:
			texts = append(texts, w)
		case json.Number:
			texts = append(texts, w.String())
		case bool:
			texts = append(texts, strconv.FormatBool(w))
		}
	}
	actual := f[key]
	if operator == "Null" {
		for _, t := range texts {
			if strings.EqualFold(t, strconv.FormatBool(len(actual) == 0)) {
				return true
			}
		}
		return false
	}
	set, base, found := strings.Cut(operator, ":")
	if !found {
		set, base = "", operator
	}
	base, ifExists := strings.CutSuffix(base, "IfExists")
	negated := strings.Contains(base, "Not")
	positive := strings.Replace(base, "Not", "", 1)
	if len(actual) == 0 {
		if ifExists {
			return true
		}
		switch set {
		case "ForAllValues":
			return true
		case "ForAnyValue":
			return false
		}
		return negated
	}
	passed := 0
	for _, a := range actual {
		any := false
		for _, t := range texts {
			any = any || modelCompare(positive, t, a, f, version)
		}
		if any != negated {
			passed++
		}
	}
	switch {
	case set == "ForAllValues", set == "" && !deny:
		return passed == len(actual)
	default:
		return passed > 0
	}
}

func modelCompare(operator, wanted, actual string, f facts, version string) bool {
	switch operator {
	case "StringEquals", "StringEqualsIgnoreCase":
		p, ok := modelSubstitute(wanted, f, version, false)
		if !ok {
			return false
		}
		var text []rune
		for _, m := range p {
			text = append(text, m.c)
		}
		if operator == "StringEquals" {
			return string(text) == actual
		}
		return strings.EqualFold(string(text), actual)
	case "StringLike":
		p, ok := modelSubstitute(wanted, f, version, true)
		return ok && modelGlob(p, actual)
	case "ArnEquals", "ArnLike":
		p, ok := modelSubstitute(wanted, f, version, true)
		return ok && modelARN(p, actual)
	case "Bool":
		a := strings.ToLower(actual)
		return (a == "true" || a == "false") && a == strings.ToLower(wanted)
	case "BinaryEquals":
		b, _ := base64.StdEncoding.DecodeString(wanted)
		return bytes.Equal(b, []byte(actual))
	case "IpAddress":
		actual, _, _ = strings.Cut(actual, "%")
		ip := net.ParseIP(actual)
		if ip == nil {
			return false
		}
		if one := net.ParseIP(wanted); one != nil {
			return one.Equal(ip)
		}
		_, network, _ := net.ParseCIDR(wanted)
		return network.Contains(ip)
	}
	kind, relation := "Numeric", strings.TrimPrefix(operator, "Numeric")
	if strings.HasPrefix(operator, "Date") {
		kind, relation = "Date", strings.TrimPrefix(operator, "Date")
	}
	var order int
	if kind == "Numeric" {
		a, b := modelNumber(actual), modelNumber(wanted)
		if a == nil || b == nil {
			return false
		}
		order = a.Cmp(b)
	} else {
		a, b := modelDate(actual), modelDate(wanted)
		if a == nil || b == nil {
			return false
		}
		order = a.Compare(*b)
	}
	allowed := map[string][]int{"Equals": {0}, "LessThan": {-1}, "LessThanEquals": {-1, 0}, "GreaterThan": {1}, "GreaterThanEquals": {0, 1}}
	return slices.Contains(allowed[relation], order)
}

var modelDecimal = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?$`)

func modelNumber(s string) *big.Rat {
	if !modelDecimal.MatchString(s) {
		return nil
	}
	r, _ := new(big.Rat).SetString(s)
	return r
}

var modelDates = map[*regexp.Regexp]string{
	regexp.MustCompile(`^\d{4}-\d\d$`):                                              "2006-01",
	regexp.MustCompile(`^\d{4}-\d\d-\d\d$`):                                         "2006-01-02",
	regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d(Z|[+-]\d\d:\d\d)$`):              "2006-01-02T15:04Z07:00",
	regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`): "2006-01-02T15:04:05Z07:00",
}

func modelDate(s string) *time.Time {
	if seconds, err := strconv.ParseUint(s, 10, 64); err == nil {
		if len(s) == 4 || len(s) > 12 {
			return nil
		}
		t := time.Unix(int64(seconds), 0)
		return &t
	}
	for shape, layout := range modelDates {
		if shape.MatchString(s) {
			if t, err := time.Parse(layout, s); err == nil {
				return &t
			}
		}
	}
	return nil
}
