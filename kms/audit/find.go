package audit

import (
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"time"
)

// A Filter says which records are wanted: those that fit every field that is not empty.
type Filter struct {
	Since, Until time.Time // the first second, and the first that is not wanted any more
	Key          string    // part of the ARN of a resource, or of the keyId of the request
	Principal    string    // an ARN, a user name or the id of an access key
	Operation    string    // an eventName
	Outcome      Outcome
}

// An Outcome is how a request ended.
type Outcome string

const (
	Any    Outcome = ""
	OK     Outcome = "ok"
	Denied Outcome = "denied" // refused with AccessDenied
	Failed Outcome = "failed" // refused for whatever reason
)

// An Entry is a record as it was read back: the line, and what most readers want of it.
type Entry struct {
	Line     []byte // without its newline; valid until the next entry
	File     string
	Number   int // of the line in the file, from 1
	Sequence uint64

	Time         time.Time
	Source, Name string
	EventType    string
	Principal    string // the ARN; without one the user name, the access key, or the type of who asked
	SourceIP     string
	KeyID        string // as the request has it
	KeyARN       string // of the first resource
	ErrorCode    string
	ErrorMessage string
	RequestID    string
	ReadOnly     bool
}

// Find yields the records in the files of a log that fit a filter, in the order of the chain, without checking that it is one: that is for [Verify].
// A line that is not a record is an error, after which the next ones follow. Checkpoints are passed over, unless they are asked for as the
// Operation. An unfinished last line is one that is being written, or that a crash left, and is passed over too.
func Find(files []string, f Filter) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		files, err := inOrder(files)
		if err != nil {
			yield(nil, err)
			return
		}
		r := newReader(files)
		defer r.close()
		for {
			line, err := r.next()
			if err == io.EOF {
				return
			}
			if err != nil {
				var bad *Finding
				if !errors.As(err, &bad) || bad.Kind != Torn {
					yield(nil, err)
				}
				return
			}
			e, err := f.match(line)
			if err != nil {
				if !yield(nil, &Finding{Malformed, r.file, r.line, err.Error()}) {
					return
				}
				continue
			}
			if e == nil {
				continue
			}
			e.File, e.Number = r.file, r.line
			if !yield(e, nil) {
				return
			}
		}
	}
}

// view is what match reads of a line.
type view struct {
	Identity struct {
		Type        string `json:"type"`
		ARN         string `json:"arn"`
		AccessKeyID string `json:"accessKeyId"`
		UserName    string `json:"userName"`
	} `json:"userIdentity"`
	Time              string          `json:"eventTime"`
	Source            string          `json:"eventSource"`
	Name              string          `json:"eventName"`
	SourceIP          string          `json:"sourceIPAddress"`
	ErrorCode         string          `json:"errorCode"`
	ErrorMessage      string          `json:"errorMessage"`
	RequestParameters json.RawMessage `json:"requestParameters"`
	RequestID         string          `json:"requestID"`
	ReadOnly          bool            `json:"readOnly"`
	Resources         []struct {
		ARN string `json:"ARN"`
	} `json:"resources"`
	EventType string `json:"eventType"`
}

// match returns the entry of a line, or nil if it does not fit.
func (f *Filter) match(line []byte) (*Entry, error) {
	t, ok := parseTrailer(line)
	if !ok {
		return nil, errors.New("it does not end in a place in a chain")
	}
	var v view
	if err := json.Unmarshal(line, &v); err != nil {
		return nil, err
	}
	at, err := time.Parse(timeFormat, v.Time)
	if err != nil {
		return nil, errors.New("it has no eventTime")
	}
	// Parameters are whatever the operation has; one that has no keyId, or one that is no string, is not about a key by this name.
	var parameters struct {
		KeyID any `json:"keyId"`
	}
	if len(v.RequestParameters) > 0 {
		_ = json.Unmarshal(v.RequestParameters, &parameters)
	}
	keyID, _ := parameters.KeyID.(string)

	id := &v.Identity
	switch {
	case v.EventType == checkpointEvent && f.Operation != v.Name,
		f.Operation != "" && f.Operation != v.Name,
		!f.Since.IsZero() && at.Before(f.Since),
		!f.Until.IsZero() && !at.Before(f.Until),
		f.Principal != "" && f.Principal != id.ARN && f.Principal != id.UserName && f.Principal != id.AccessKeyID,
		!f.Outcome.fits(v.ErrorCode):
		return nil, nil
	}
	e := &Entry{
		Line: line, Sequence: t.sequence,
		Time: at, Source: v.Source, Name: v.Name, EventType: v.EventType, SourceIP: v.SourceIP,
		KeyID: keyID, ErrorCode: v.ErrorCode, ErrorMessage: v.ErrorMessage, RequestID: v.RequestID, ReadOnly: v.ReadOnly,
	}
	for _, e.Principal = range []string{id.ARN, id.UserName, id.AccessKeyID, id.Type} {
		if e.Principal != "" {
			break
		}
	}
	about := f.Key == "" || strings.Contains(keyID, f.Key)
	for i, r := range v.Resources {
		if i == 0 {
			e.KeyARN = r.ARN
		}
		about = about || strings.Contains(r.ARN, f.Key)
	}
	if !about {
		return nil, nil
	}
	return e, nil
}

// fits reports whether a request that ended with an error code, or with none, is wanted.
func (o Outcome) fits(code string) bool {
	switch o {
	case Any:
		return true
	case OK:
		return code == ""
	case Denied:
		return code == "AccessDenied" || code == "AccessDeniedException"
	case Failed:
		return code != ""
	}
	return false
}
