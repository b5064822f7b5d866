package policy

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// A source is where the generator takes its decisions from: a random one, or the bytes of a fuzzer.
type source interface {
	n(below int) int
}

type dice struct{ *rand.Rand }

func (d dice) n(below int) int { return d.IntN(below) }

type tape struct{ b []byte }

func (t *tape) n(below int) int {
	if len(t.b) == 0 {
		return below - 1 // what ends the generator's loops
	}
	c := t.b[0]
	t.b = t.b[1:]
	return int(c) % below
}

func pick[T any](s source, from []T) T { return from[s.n(len(from))] }

// The words of the generator are few, so that documents and questions meet often, and each is there because something can go wrong with it.

const (
	ours   = "111122223333"
	theirs = "444455556666"
	keyOne = "arn:aws:kms:eu-central-1:111122223333:key/11111111-1111-1111-1111-111111111111"
)

var (
	genCallers = []Caller{
		{ARN: "arn:aws:iam::111122223333:user/alice", Account: ours},
		{ARN: "arn:aws:iam::111122223333:user/alice", Account: ours},
		{ARN: "arn:aws:iam::111122223333:user/team/bob", Account: ours},
		{ARN: "arn:aws:iam::111122223333:root", Account: ours},
		{ARN: "arn:aws:sts::111122223333:assumed-role/admin/s1", Role: "arn:aws:iam::111122223333:role/admin", Account: ours},
		{ARN: "arn:aws:sts::111122223333:federated-user/carol", Account: ours},
		{ARN: "arn:aws:iam::444455556666:user/alice", Account: theirs},
		{ARN: "arn:aws:iam::444455556666:root", Account: theirs},
		{ARN: "arn:aws:sts::444455556666:assumed-role/admin/s2", Role: "arn:aws:iam::444455556666:role/admin", Account: theirs},
		{ARN: "arn:aws-cn:iam::111122223333:user/alice", Account: ours},
	}
	genPrincipals = []string{
		"*", ours, theirs, "arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:root", "arn:aws:iam::444455556666:root",
		"arn:aws-cn:iam::111122223333:root", "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:user/alice",
		"arn:aws:iam::111122223333:user/team/bob", "arn:aws:iam::111122223333:role/admin", "arn:aws:sts::111122223333:assumed-role/admin/s1",
		"arn:aws:sts::111122223333:assumed-role/admin/s2", "arn:aws:sts::111122223333:federated-user/carol", "arn:aws:iam::444455556666:user/alice",
		"arn:aws:iam::444455556666:role/admin",
	}
	genActions = []string{"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPairWithoutPlaintext", "kms:ReEncryptFrom",
		"kms:CreateGrant"}
	genActionPatterns = []string{"kms:*", "kms:*", "*", "kms:Decrypt", "KMS:decrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "kms:?ncrypt",
		"kms:*crypt", "s3:*", "kms:*Data*Pair*", "k?s:??crypt", "*:Decrypt", "kms:*t*t*", "kms:Encrypt", "kms:CreateGrant"}
	genResources = []string{keyOne, keyOne, "arn:aws:kms:eu-central-1:444455556666:key/2222", "arn:aws:kms:eu-central-1:111122223333:alias/alice",
		"arn:aws:kms:eu-central-1:111122223333:key/a:b/c", "*"}
	genResourcePatterns = []string{"*", "*", "*", keyOne, "arn:aws:kms:*:111122223333:key/*", "arn:aws:kms:*:*:*", "arn:aws:kms:*:key/*:x",
		"arn:*:*:*:*:*", "arn:aws:kms:eu-central-1:111122223333:alias/${aws:username}", "arn:aws:kms:*:*:alias/${aws:username, 'alice'}",
		"arn:aws:kms:*:*:key/${*}", "arn:aws:kms:*:*:key/?:?/?", "arn:aws:kms:*:*:key/${aws:PrincipalTag/team}*", "arn:aws:s3:::b/${aws:username}/*"}

	genNames = []string{"kms:ViaService", "KMS:viaservice", "kms:EncryptionContext:Dept", "kms:encryptioncontext:dept", "aws:username",
		"aws:PrincipalTag/team", "kms:EncryptionContextKeys", "kms:GrantOperations", "kms:DataKeyPairSpec"}
	genStrings = []string{"a", "A", "ab", "a*b", "a?", "*", "", "é", "alice", "${aws:username}", "x${aws:username}y", "${*}", "a${?}", "${$}{a}",
		"${aws:PrincipalTag/team, 'ab'}", "${ aws:PrincipalTag/team , '*' }", "${kms:EncryptionContextKeys}", "*a*", "?", "*${aws:username}*", "$", "a$b"}
	genStringValues = []string{"a", "A", "ab", "a*b", "alice", "xalicey", "é", "É", "*", "?", "", "a:b", "axb", "${aws:username}", "${a}", "a?", "a$b"}
	genNumberNames  = []string{"kms:RotationPeriodInDays", "kms:ScheduleKeyDeletionPendingWindowInDays"}
	genNumbers      = []any{"90", 90, "-1", "0", "-0", "90.0", 90.5, "365", "00090", "9007199254740993", "+90"}
	genNumberValues = []string{"90", "91", "x", "", "90.50", "-1", "1e2", "+90", "0", "9007199254740992", "89.999", "."}
	genDateNames    = []string{"aws:CurrentTime", "kms:ValidTo"}
	genDates        = []any{"2026-01-01", "2026-01", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00", "1767225600", 1767225600,
		"2026-01-01T00:00Z", "2026-01-01T00:00:00.5Z", "2027-01-01"}
	genDateValues = []string{"2026-01-01T00:00:00Z", "2026-01-01", "1767225600", "1767225601", "2026-01-01T00:00:00.500Z", "2026", "x", "",
		"2025-12-31T23:59:59-01:00", "2026-01-01T0:00:00Z", "2026-01-01T00:00:00,5Z", "2026-01-01 00:00:00Z", "2026-13-01"}
	genBoolNames  = []string{"aws:MultiFactorAuthPresent", "kms:GrantIsForAWSResource"}
	genBools      = []any{true, false, "true", "false", "TRUE"}
	genBoolValues = []string{"true", "false", "True", "1", ""}
	genIPNames    = []string{"aws:SourceIp"}
	genIPs        = []any{"10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "::ffff:10.0.0.0/104", "10.1.2.3/16", "::/0", "0.0.0.0/0", "fe80::1"}
	genIPValues   = []string{"10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "fe80::1%eth0", "x", "", "192.0.2.1", "10.1.2.3/32"}
	genARNNames   = []string{"aws:PrincipalArn", "kms:GranteePrincipal"}
	genARNs       = []any{"arn:aws:iam::111122223333:user/*", "arn:aws:iam::*:user/alice", "arn:*:*:*:*:*",
		"arn:aws:iam::111122223333:user/${aws:username}", "arn:aws:sts::111122223333:assumed-role/admin/*", "arn:aws:iam:*:user/a:b",
		"arn:aws:iam::1111?2223333:*", "arn:aws:iam:${aws:username}:111122223333:user/alice"}
	genARNValues = []string{"arn:aws:iam::111122223333:user/alice", "arn:aws:iam::444455556666:user/alice", "x", "", "arn:aws:iam::111122223333:user/a:b",
		"arn:aws:sts::111122223333:assumed-role/admin/s1", "arn:aws:iam::111122223333:user/*"}
	genBinaryNames  = []string{"custom:Bytes"}
	genBinaries     = []any{"YQ==", "", "AP8="}
	genBinaryValues = []string{"a", "YQ==", "", "\x00\xff"}
)

// A vocabulary is a type of value: who may compare it, and with what.
type vocabulary struct {
	operators []string
	names     []string
	wanted    []any
	actual    []string
}

func anys(s []string) []any {
	var all []any
	for _, s := range s {
		all = append(all, s)
	}
	return all
}

var vocabularies = []vocabulary{
	{[]string{"StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike"},
		genNames, append(anys(genStrings), 90, true), genStringValues},
	{[]string{"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals"},
		genNumberNames, genNumbers, genNumberValues},
	{[]string{"DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals"},
		genDateNames, genDates, genDateValues},
	{[]string{"Bool"}, genBoolNames, genBools, genBoolValues},
	{[]string{"IpAddress", "NotIpAddress"}, genIPNames, genIPs, genIPValues},
	{[]string{"ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"}, genARNNames, genARNs, genARNValues},
	{[]string{"BinaryEquals"}, genBinaryNames, genBinaries, genBinaryValues},
}

// genList returns a value or a list of some.
func genList[T any](s source, from []T) any {
	if s.n(2) == 0 {
		return pick(s, from)
	}
	list := []T{pick(s, from)}
	for s.n(2) == 0 {
		list = append(list, pick(s, from))
	}
	return list
}

func genCondition(s source, kind Kind, effect string, variables bool) map[string]any {
	condition := make(map[string]any)
	for s.n(2) == 0 {
		v := vocabularies[0]
		if s.n(2) == 0 {
			v = pick(s, vocabularies)
		}
		name := pick(s, v.names)
		operator := pick(s, v.operators)
		switch s.n(12) {
		case 0, 1:
			operator = "ForAnyValue:" + operator
		case 2, 3:
			context := strings.HasPrefix(strings.ToLower(name), "kms:encryptioncontext:")
			if !(kind == KeyPolicy && effect == "Allow" && context) {
				operator = "ForAllValues:" + operator
			}
		}
		if s.n(4) == 0 {
			operator += "IfExists"
		}
		words := v.wanted
		if variables && v.operators[0] == "ArnEquals" {
			words = append(slices.Clone(words), "${aws:PrincipalArn}") // which is no ARN without variables
		}
		wanted := genList(s, words)
		if s.n(8) == 0 {
			operator, wanted = "Null", genList(s, genBools)
		}
		tests, _ := condition[operator].(map[string]any)
		if tests == nil {
			tests = make(map[string]any)
			condition[operator] = tests
		}
		tests[name] = wanted
	}
	return condition
}

func genStatement(s source, kind Kind, sid string, variables bool) map[string]any {
	st := map[string]any{"Effect": "Allow"}
	if s.n(4) == 0 {
		st["Effect"] = "Deny"
	}
	if s.n(2) == 0 {
		st["Sid"] = sid
	}
	if kind == KeyPolicy {
		element := "Principal"
		if s.n(6) == 0 && st["Effect"] == "Deny" {
			element = "NotPrincipal"
		}
		switch s.n(8) {
		case 0:
			st[element] = "*"
		case 1:
			st[element] = map[string]any{"Service": "s3.amazonaws.com"}
		case 2:
			st[element] = map[string]any{"Federated": "cognito", "AWS": genList(s, genPrincipals)}
		default:
			st[element] = map[string]any{"AWS": genList(s, genPrincipals)}
		}
	}
	if kind == IdentityPolicy || s.n(30) != 0 {
		st[pick(s, []string{"Action", "Action", "Action", "NotAction"})] = genList(s, genActionPatterns)
	}
	if kind == IdentityPolicy || s.n(30) != 0 {
		st[pick(s, []string{"Resource", "Resource", "Resource", "NotResource"})] = genList(s, genResourcePatterns)
	}
	if s.n(2) == 0 {
		st["Condition"] = genCondition(s, kind, st["Effect"].(string), variables)
	}
	return st
}

func genDocument(s source, kind Kind) string {
	version := pick(s, []string{"2012-10-17", "2012-10-17", "2012-10-17", "2008-10-17", ""})
	statements := []any{genStatement(s, kind, "A", version == "2012-10-17")}
	for _, sid := range []string{"B", "C", "D", "E"} {
		if s.n(2) == 0 {
			break
		}
		statements = append(statements, genStatement(s, kind, sid, version == "2012-10-17"))
	}
	document := map[string]any{"Statement": statements}
	if len(statements) == 1 && s.n(2) == 0 {
		document["Statement"] = statements[0]
	}
	if version != "" {
		document["Version"] = version
	}
	b, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func genQuestion(s source) (Question, facts) {
	f := make(facts)
	for _, v := range vocabularies {
		for _, name := range v.names {
			switch s.n(6) {
			case 0, 1:
				delete(f, strings.ToLower(name))
			case 2:
				f[strings.ToLower(name)] = []string{} // the same as none
			case 3:
				f[strings.ToLower(name)] = []string{pick(s, v.actual), pick(s, v.actual)}
			default:
				f[strings.ToLower(name)] = []string{pick(s, v.actual)}
			}
		}
	}
	return Question{Caller: pick(s, genCallers), Action: pick(s, genActions), Resource: pick(s, genResources),
		Owner: pick(s, []string{ours, ours, theirs}), Context: f}, f
}

// A round is a set of documents.
type round struct {
	key      *written
	identity []written
	policies Policies
}

func genRound(t *testing.T, s source) round {
	var r round
	parse := func(kind Kind) (string, *Document) {
		text := genDocument(s, kind)
		d, err := Parse(kind, text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return text, d
	}
	if s.n(8) != 0 {
		text, d := parse(KeyPolicy)
		r.key = &written{"key policy", text}
		r.policies.Key = d
	}
	for _, name := range []string{"one", "two"} {
		if s.n(3) == 0 {
			continue
		}
		text, d := parse(IdentityPolicy)
		r.identity = append(r.identity, written{name, text})
		r.policies.Identity = append(r.policies.Identity, Named{name, d})
	}
	return r
}

// compare asks the package and the model the same.
func (r round) compare(t *testing.T, q Question, f facts) Decision {
	t.Helper()
	want := modelDecide(q, r.key, r.identity, f)
	got := Decide(q, r.policies)
	if got != want {
		t.Errorf("%+v\nfacts %q\nkey policy %v\nidentity policies %v\n got %+v\nwant %+v", q, f, r.key, r.identity, got, want)
	}
	explained, steps := Explain(q, r.policies)
	if explained != got {
		t.Errorf("%+v\nkey policy %v\nidentity policies %v\nExplain %+v\n Decide %+v", q, r.key, r.identity, explained, got)
	}
	checkSteps(t, r.policies, got, steps)
	return got
}

// checkSteps checks that there is a step for every statement and that the steps lead to the decision.
func checkSteps(t *testing.T, p Policies, d Decision, steps []Step) {
	t.Helper()
	n := 0
	if p.Key != nil {
		n = len(p.Key.statements)
	}
	for _, i := range p.Identity {
		n += len(i.Document.statements)
	}
	if len(steps) != n {
		t.Errorf("%d steps for %d statements", len(steps), n)
	}
	denied := slices.ContainsFunc(steps, func(s Step) bool { return s.Applied && s.Effect == "Deny" })
	if denied != d.Explicit {
		t.Errorf("a Deny applied: %v, explicit: %v", denied, d.Explicit)
	}
	decided := slices.ContainsFunc(steps, func(s Step) bool {
		return s.Applied && s.Document == d.Document && s.Statement == d.Statement && (s.Effect == "Allow") == d.Allowed
	})
	if d.Statement != "" && !decided {
		t.Errorf("no step for %q of %q, which decided", d.Statement, d.Document)
	}
	for _, s := range steps {
		if s.Applied != (s.Missed == MissedNothing) || (s.Missed == MissedCondition) != (len(s.Failed) > 0) {
			t.Errorf("%+v contradicts itself", s)
		}
	}
}

// TestModel compares Decide with the model. STRONGROOM_POLICY_TIME, a duration, makes it go on for longer than a second, from another seed.
func TestModel(t *testing.T) {
	seed, end := uint64(1), time.Now().Add(time.Second)
	if s := os.Getenv("STRONGROOM_POLICY_TIME"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		seed, end = uint64(time.Now().UnixNano()), time.Now().Add(d)
	}
	s := dice{rand.New(rand.NewPCG(seed, 0))}
	reasons := make(map[Reason]int)
	asked := 0
	for rounds := 0; !t.Failed() && (rounds < 300 || time.Now().Before(end)); rounds++ {
		r := genRound(t, s)
		for range 10 {
			q, f := genQuestion(s)
			d := r.compare(t, q, f)
			reasons[d.Reason]++
			asked++
		}
	}
	t.Logf("seed %d, %d questions: %v", seed, asked, reasons)
	for r := range reasonNames {
		if reasons[Reason(r)] < asked/200 && !t.Failed() {
			t.Errorf("%v came out %d times: the generator does not reach it", Reason(r), reasons[Reason(r)])
		}
	}
}

// TestOrder checks that the order of statements and of identity policies does not matter.
func TestOrder(t *testing.T) {
	s := dice{rand.New(rand.NewPCG(2, 0))}
	for range 500 {
		r := genRound(t, s)
		other := Policies{Identity: slices.Clone(r.policies.Identity)}
		reversed := func(d *Document) *Document {
			c := *d
			c.statements = slices.Clone(d.statements)
			slices.Reverse(c.statements)
			return &c
		}
		if r.policies.Key != nil {
			other.Key = reversed(r.policies.Key)
		}
		for i, n := range other.Identity {
			other.Identity[i].Document = reversed(n.Document)
		}
		slices.Reverse(other.Identity)
		for range 5 {
			q, _ := genQuestion(s)
			a, b := Decide(q, r.policies), Decide(q, other)
			a.Document, a.Statement, b.Document, b.Statement = "", "", "", ""
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("%+v\n%v\n%v\n%+v\nreversed: %+v", q, r.key, r.identity, a, b)
			}
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add([]byte("the default policy and a question"))
	s := rand.New(rand.NewPCG(3, 0))
	for range 20 {
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(s.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &tape{b}
		r := genRound(t, s)
		q, facts := genQuestion(s)
		r.compare(t, q, facts)
	})
}
