package kms

import (
	"context"
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

const eventBatch = 100

// recordEvents moves events from the store into the audit log, oldest first. After a crash in between, some are recorded twice, with the same event id.
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
			r := new(audit.Record)
			if err := json.Unmarshal(e.Body, r); err != nil {
				return fmt.Errorf("event %d in the store: %w", e.Sequence, err)
			}
			if err := s.audit.Append(ctx, r); err != nil {
				return err
			}
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
