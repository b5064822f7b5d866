package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"strongroom/kms/audit"
)

// A Recorder keeps the audit record. [audit.Log] is one.
type Recorder interface {
	// Append returns nil once the record is durable.
	Append(ctx context.Context, r *audit.Record) error
	// Err returns nil if records can be kept now.
	Err() error
	// Expect announces a record that will be appended soon.
	Expect()
}

// A trail gathers what the audit record of one request says, while the request is answered. Its methods do nothing on a nil trail. It is not safe for
// concurrent use: a request is answered by one goroutine.
type trail struct {
	operation  string
	began      time.Time
	expected   bool // by the recorder
	eventID    string
	parameters []byte // JSON
	response   any    // what the record shows of the answer
	additional map[string]any
	resources  []audit.Resource
	grants     []string
	uses       []KeyID
}

// resource notes the resource that the request is about.
func (t *trail) resource(account, arn string) {
	if t == nil || slices.ContainsFunc(t.resources, func(r audit.Resource) bool { return r.ARN == arn }) {
		return
	}
	t.resources = append(t.resources, audit.Resource{ARN: arn, AccountID: account, Type: "AWS::KMS::Key"})
}

// noted returns how many resources are noted, for forget.
func (t *trail) noted() int {
	if t == nil {
		return 0
	}
	return len(t.resources)
}

// forget takes back the resources after the first n.
func (t *trail) forget(n int) {
	if t != nil {
		t.resources = t.resources[:n]
	}
}

// grant notes a grant that allowed the request, if one did: ReEncrypt may need two.
func (t *trail) grant(g *Grant) {
	if t != nil && g != nil && !slices.Contains(t.grants, g.ID) {
		t.grants = append(t.grants, g.ID)
	}
}

// used notes that a key was used.
func (t *trail) used(key KeyID) {
	if t != nil {
		t.uses = append(t.uses, key)
	}
}

// add notes something that has no other place in the record.
func (t *trail) add(name string, value any) {
	if t == nil {
		return
	}
	if t.additional == nil {
		t.additional = make(map[string]any)
	}
	t.additional[name] = value
}

// answer notes what the record shows of the answer: nothing that is secret, and for most operations nothing.
func (t *trail) answer(v any) {
	if t != nil {
		t.response = v
	}
}

// Begin returns who with a trail for one request, which ends with Record. It fails if the request could not be recorded, or if there are too many of its
// kind.
func (s *Service) Begin(who Caller, operation string) (Caller, error) {
	who.trail = &trail{operation: operation, began: time.Now(), eventID: newUUID()}
	if err := s.audit.Err(); err != nil {
		return who, &Error{Code: Internal, Err: fmt.Errorf("no request is answered while the audit log cannot be written: %w", err)}
	}
	s.audit.Expect()
	who.trail.expected = true
	return who, s.throttle(who, classOf(operation))
}

// Parameters gives the record the parameters of the request, a JSON object without secrets, blobs and grant tokens.
func (who Caller) Parameters(object []byte) {
	if who.trail != nil {
		who.trail.parameters = object
	}
}

// readOnly are the operations that change nothing. As in CloudTrail, to use a key is to read.
var readOnly = map[string]bool{
	"Decrypt": true, "DescribeKey": true, "Encrypt": true, "GenerateDataKey": true, "GenerateDataKeyPair": true,
	"GenerateDataKeyPairWithoutPlaintext": true, "GenerateDataKeyWithoutPlaintext": true, "GenerateRandom": true, "GetCallerIdentity": true,
	"GetKeyLastUsage": true, "GetKeyPolicy": true, "GetKeyRotationStatus": true, "ListAliases": true, "ListGrants": true, "ListKeyPolicies": true,
	"ListKeyRotations": true, "ListKeys": true, "ListResourceTags": true, "ListRetirableGrants": true, "ReEncrypt": true,
}

const (
	kmsSource = "kms.amazonaws.com"
	stsSource = "sts.amazonaws.com"
)

// Record writes the record of the request that who began: code and message are what the client is told, empty for an answer. The answer, or the refusal, may
// leave only when Record returned nil. The request's context does not bound it: what was done is recorded also for a client that went away.
func (s *Service) Record(ctx context.Context, who Caller, code, message string) error {
	t := who.trail
	if t == nil {
		return fmt.Errorf("a request without a trail")
	}
	ctx = context.WithoutCancel(ctx)
	r := &audit.Record{
		Time:              t.began,
		Identity:          s.recordIdentity(ctx, who),
		Source:            kmsSource,
		Name:              t.operation,
		Region:            s.region,
		UserAgent:         who.UserAgent,
		ErrorCode:         code,
		ErrorMessage:      message,
		RequestParameters: t.parameters,
		RequestID:         who.RequestID,
		EventID:           t.eventID,
		ReadOnly:          readOnly[t.operation],
		Resources:         t.resources,
		EventType:         audit.APICall,
		Recipient:         who.Account,
		TLS:               who.TLS,
		Expected:          t.expected,
	}
	if t.operation == "GetCallerIdentity" {
		r.Source = stsSource
	}
	if who.Source.IsValid() {
		r.SourceIP = who.Source.String()
	}
	var err error
	if t.response != nil && code == "" {
		if r.ResponseElements, err = json.Marshal(t.response); err != nil {
			return fmt.Errorf("encode the record: %w", err)
		}
	}
	switch {
	case len(t.grants) == 1:
		t.add("grantId", t.grants[0])
	case len(t.grants) > 1:
		t.add("grantIds", t.grants)
	}
	if t.additional != nil {
		if r.AdditionalEventData, err = json.Marshal(t.additional); err != nil {
			return fmt.Errorf("encode the record: %w", err)
		}
	}
	if err := s.audit.Append(ctx, r); err != nil {
		return &Error{Code: Internal, Err: fmt.Errorf("the request could not be recorded: %w", err)}
	}
	s.usage.credential(who.AccessKey, t.began)
	if code == "" {
		for _, key := range t.uses {
			s.usage.key(KeyUse{Key: key, Operation: t.operation, Time: t.began, EventID: t.eventID, RequestID: who.RequestID})
		}
	}
	return nil
}

// recordIdentity says who made a request, as CloudTrail's userIdentity does.
func (s *Service) recordIdentity(ctx context.Context, who Caller) audit.Identity {
	i := audit.Identity{ARN: who.Principal, AccountID: who.Account, AccessKeyID: who.AccessKey}
	id, err := s.identity(ctx, who)
	if err != nil {
		i.Type = "Unknown" // gone meanwhile: the ARN says who it was
		return i
	}
	i.PrincipalID = id.id
	switch {
	case who.Role != "":
		i.Type = "AssumedRole"
		i.PrincipalID += ":" + sessionName(who.Principal)
		i.Session = &audit.Session{IssuerType: "Role", IssuerPrincipalID: id.id, IssuerARN: who.Role, IssuerAccountID: who.Account,
			IssuerUserName: id.arn.Name, Created: who.Issued}
	case id.arn.IsRoot():
		i.Type = "Root"
	default:
		i.Type, i.UserName = "IAMUser", id.arn.Name
	}
	return i
}
