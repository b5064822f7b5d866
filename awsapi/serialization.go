package awsapi

import "github.com/go-json-experiment/json/jsontext"

// serialization is the refusal of a body that cannot be read as the request. Most have no message.
func serialization(message string) error {
	return &refusal{form: serializationException, message: message}
}

// syntax is what the client hears about text that is not JSON, or not quite: UTF-8 that is not valid and a name that occurs twice are
// refused too, because two readers of such a text may see two requests.
func syntax(err error) error { return &refusal{form: serializationException, err: err} }

// takes reports whether a value of kind j in JSON can be one of kind k.
func (k kind) takes(j jsontext.Kind) bool {
	switch k {
	case kindString, kindEnum, kindBlob:
		return j == jsontext.KindString
	case kindBool:
		return j == jsontext.KindTrue || j == jsontext.KindFalse
	case kindInt, kindTime:
		return j == jsontext.KindNumber
	case kindList:
		return j == jsontext.KindBeginArray
	case kindStruct, kindMap:
		return j == jsontext.KindBeginObject
	}
	return false
}

// mismatch is the refusal of a value of kind j where k is wanted, in the words of the front end that AWS's JSON 1.1 services share.
// They were measured, not specified; "an Boolean" is as measured, for a string alone.
func mismatch(k kind, j jsontext.Kind) error {
	switch {
	case j == jsontext.KindBeginArray:
		return serialization("Start of list found where not expected")
	case j == jsontext.KindBeginObject:
		return serialization("Start of structure or map found where not expected.")
	case k == kindList:
		return serialization("Expected list or null")
	case k == kindStruct || k == kindMap:
		return serialization("Expected null")
	}
	token := map[jsontext.Kind]string{
		jsontext.KindString: "STRING_VALUE",
		jsontext.KindNumber: "NUMBER_VALUE",
		jsontext.KindTrue:   "TRUE_VALUE",
		jsontext.KindFalse:  "FALSE_VALUE",
	}[j]
	var want string
	switch {
	case k == kindInt:
		want = "an Integer"
	case k == kindBool && j == jsontext.KindString:
		want = "an Boolean"
	case k == kindBool:
		want = "a Boolean"
	case k == kindBlob:
		want = "a Blob"
	case k == kindTime:
		want = "milliseconds since epoch"
	default:
		want = "a String"
	}
	return serialization(token + " can not be converted to " + want)
}
