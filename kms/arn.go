package kms

import "strings"

// An arn is a parsed Amazon Resource Name of this service:
//
//	arn:<partition>:kms:<region>:<account>:<resource>
//
// where resource is key/<key id> or alias/<name>. Every part but the resource is known not to be empty.
type arn struct {
	partition, region, account, resource string
}

// parseARN takes s apart. It says nothing of whether the resource exists or the parts are ours.
func parseARN(s string) (arn, bool) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "kms" {
		return arn{}, false
	}
	a := arn{partition: parts[1], region: parts[3], account: parts[4], resource: parts[5]}
	if a.partition == "" || a.region == "" || !IsAccount(a.account) || a.resource == "" {
		return arn{}, false
	}
	return a, true
}

// String writes what parseARN reads.
func (a arn) String() string {
	return "arn:" + a.partition + ":kms:" + a.region + ":" + a.account + ":" + a.resource
}

// IsAccount reports whether s is an AWS account number: 12 digits.
func IsAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// keyARN returns the ARN of a key here.
func (s *Service) keyARN(account string, id KeyID) string {
	return "arn:" + s.partition + ":kms:" + s.region + ":" + account + ":key/" + id.String() // as arn.String, in one piece
}

// aliasARN returns the ARN of an alias here. The name has its prefix "alias/".
func (s *Service) aliasARN(account, name string) string {
	return arn{s.partition, s.region, account, name}.String()
}
