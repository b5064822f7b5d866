package kms

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"strongroom/kms/audit"
)

// insertEvent stores the audit record of something that no request did, in the transaction that does it.
func insertEvent(tx Tx, r *audit.Record) error {
	if r.EventID == "" {
		r.EventID = newUUID()
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	return tx.InsertEvent(body)
}

// serviceEvent is an act of the server itself on a key.
func (s *Service) serviceEvent(name string, key *Key, details map[string]any) *audit.Record {
	arn := s.keyARN(key.Account, key.ID)
	if details == nil {
		details = make(map[string]any)
	}
	details["keyId"] = key.ID.String()
	body, _ := json.Marshal(details) // strings and numbers
	return &audit.Record{
		Identity:            audit.Identity{Type: "AWSService", AccountID: key.Account, InvokedBy: "AWS Internal"},
		Source:              kmsSource,
		Name:                name,
		Region:              s.region,
		SourceIP:            "AWS Internal",
		UserAgent:           "AWS Internal",
		Resources:           []audit.Resource{{ARN: arn, AccountID: key.Account, Type: "AWS::KMS::Key"}},
		EventType:           audit.ServiceEvent,
		Recipient:           key.Account,
		ServiceEventDetails: body,
	}
}

// eventRecord returns the record of an event. What cannot be read is recorded as such, so that it does not keep back what came after it; and nothing in the
// store can pass for a request that somebody signed.
func (s *Service) eventRecord(e Event) *audit.Record {
	r := new(audit.Record)
	err := json.Unmarshal(e.Body, r)
	if err == nil && (r.EventType == audit.AdminEvent || r.EventType == audit.ServiceEvent) && r.RequestID == "" && len(e.Body) <= maxEvent {
		return r
	}
	return s.unreadable(e, err)
}

// unreadable returns the record of an event that cannot be recorded as it is.
func (s *Service) unreadable(e Event, err error) *audit.Record {
	s.log.Error("an event in the store is not one that this program wrote; its hash is recorded in its place", "sequence", e.Sequence, "err", err)
	details, _ := json.Marshal(map[string]any{"sequence": e.Sequence, "sha256": fmt.Sprintf("%x", sha256.Sum256(e.Body)), "size": len(e.Body)})
	return &audit.Record{
		Time: time.Now(), Identity: audit.Identity{Type: "AWSService", InvokedBy: "AWS Internal"}, Source: kmsSource, Name: "UnreadableEvent", Region: s.region,
		EventID: newUUID(), EventType: audit.ServiceEvent, ServiceEventDetails: details,
	}
}

const (
	eventBatch = 100
	maxEvent   = 512 << 10 // bytes; a policy of the largest size makes one of some 50 kB
)

// recordEvents moves events from the store into the audit log, oldest first. After a crash in between, some are recorded twice, with the same event id. Only
// one goroutine calls it.
func (s *Service) recordEvents(ctx context.Context) error {
	for ctx.Err() == nil {
		var events []Event
		err := s.store.View(ctx, func(tx Tx) (err error) {
			events, err = tx.Events(eventBatch)
			return err
		})
		if err != nil || len(events) == 0 {
			return err
		}
		for _, e := range events {
			if e.Sequence <= s.recorded {
				continue // before, and could not be deleted then
			}
			// Once it is with the log it may be recorded, whatever ctx says, and must not be again.
			ctx := context.WithoutCancel(ctx)
			err := s.audit.Append(ctx, s.eventRecord(e))
			if err != nil && s.audit.Err() == nil {
				err = s.audit.Append(ctx, s.unreadable(e, err)) // the log is well, and will not have it
			}
			if err != nil {
				return err
			}
			s.recorded = e.Sequence
		}
		last := events[len(events)-1].Sequence
		if err := s.store.Update(ctx, func(tx Tx) error { return tx.DeleteEvents(last) }); err != nil {
			return err
		}
		if len(events) < eventBatch {
			return nil
		}
	}
	return ctx.Err()
}
