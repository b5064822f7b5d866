package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// TestMalformedBodies: what is not one JSON object is refused without a word, and a list with one.
func TestMalformedBodies(t *testing.T) {
	s := start(t, t.TempDir())
	deep := strings.Repeat("[", 90_000)
	for _, body := range []string{
		``, ` `, `null`, `true`, `1`, `""`, `"x"`, `{`, `}`, `{}}`, `{}{}`, `{} {}`, `{},`, `{"KeyId"}`, `{"KeyId":}`, `{"KeyId":"x",}`, `{,}`, `{"KeyId":"x" "y":1}`,
		`{KeyId:"x"}`, `{'KeyId':'x'}`, `{"KeyId":"x"`, `{"KeyId":"x`, `{"KeyId":"\`, `{"KeyId":"\u12"}`, `{"KeyId":"\x"}`, `{"KeyId":"` + "\n" + `"}`, `{"KeyId":"` + "\x00" + `"}`,
		"{\"KeyId\":\"\xff\xfe\"}", "{\"KeyId\":\"\xc0\xaf\"}", "{\"KeyId\":\"\xed\xa0\x80\"}", "{\"\xff\":1}", `{"KeyId":"\ud800"}`, `{"KeyId":"\udc00\ud800"}`, "\xef\xbb\xbf{}", "\x00", "{}\x00",
		`{"Limit":01}`, `{"Limit":+1}`, `{"Limit":.5}`, `{"Limit":1.}`, `{"Limit":0x10}`, `{"Limit":NaN}`, `{"Limit":Infinity}`, `{"Limit":1e}`, `{"Limit":--1}`,
		`{"KeyId":nul}`, `{"KeyId":True}`, `{"KeyId":undefined}`, `{/* x */}`, `{} // x`, `{"KeyId":"x"}]`, `{"x":[1,]}`, `{"x":[}`, `{"x":{]}`,
		`{"KeyId":"a","KeyId":"b"}`, `{"KeyId":"a","KeyId":null}`, `{"x":1,"x":2}`, `{"EncryptionContext":{"a":"b","a":"b"}}`, `{"KeyId":"a","Key\u0049d":"b"}`,
		`KeyId=x&Plaintext=y`, `<xml/>`, `{"x":` + deep, `{"x":` + deep + strings.Repeat("]", 90_000) + `}`, `{"x":` + deep[:100] + strings.Repeat("]", 100) + `}`, `{"x":` + strings.Repeat(`{"x":`, 30_000) + `1` + strings.Repeat("}", 30_001),
		strings.Repeat(`{"x":`, 39_000), strings.Repeat(`{`, 190_000),
	} {
		for _, operation := range []string{"DescribeKey", "Encrypt", "GenerateDataKeyPair", "ListKeys", "ReEncrypt"} {
			// A member of another operation is unknown, and unknown members are passed over, but not if they are no JSON.
			if operation == "ListKeys" && strings.HasPrefix(body, `{"EncryptionContext"`) {
				continue
			}
			a := s.post(t, operation, body)
			if a.code != "SerializationException" || !a.silent {
				t.Errorf("%s %.60q: %d %s %q", operation, body, a.status, a.code, a.message)
			}
		}
	}
	for _, body := range []string{`[]`, `[{}]`, deep} {
		s.expect(t, "ListKeys", body, "SerializationException", textList)
	}
	s.works(t)
}

// TestTolerance: what a JSON object may have besides what is asked for, and how it may be written.
func TestTolerance(t *testing.T) {
	s, c := shared(t)
	key := *newKey(t, c).KeyId
	for _, body := range []string{
		`{"KeyId":"` + key + `"}`,
		"\t\r\n {\n\"KeyId\" :\t\"" + key + "\" } \n",
		`{"KeyId":"` + key + `","Unknown":1,"unknown":{"a":[1,2,{"b":null}]},"":"","\u0000":0}`,
		`{"Unknown":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `,"KeyId":"` + key + `"}`,
		`{"\u004b\u0065\u0079\u0049\u0064":"` + key + `"}`,
		`{"KeyId":"` + strings.ReplaceAll(key, "-", `\u002d`) + `"}`,
		`{"keyId":"x","KEYID":"y","KeyId":"` + key + `"}`, // names are exact
		`{"KeyId":"` + key + `","GrantTokens":[]}`,
		`{"KeyId":"` + key + `","GrantTokens":null}`,
		`{"KeyId":"` + key + `","Padding":"` + strings.Repeat("x", 190_000) + `"}`,
	} {
		if a := s.post(t, "DescribeKey", body); a.status != http.StatusOK {
			t.Errorf("%.100s: %d %s %s", body, a.status, a.code, a.message)
		}
	}
	for body, want := range map[string]int{`{"NumberOfBytes":1.9}`: 1, `{"NumberOfBytes":16.0}`: 16, `{"NumberOfBytes":1e2}`: 100} {
		a := s.post(t, "GenerateRandom", body)
		if a.status != http.StatusOK || !bytes.Contains(a.body, []byte(`"Plaintext":"`)) || len(a.body) != len(`{"Plaintext":""}`)+(want+2)/3*4 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	// An operation with no output answers with nothing at all.
	for _, operation := range []string{"EnableKey", "DisableKey"} {
		if a := s.post(t, operation, `{"KeyId":"`+key+`"}`); a.status != http.StatusOK || len(a.body) != 0 || a.header.Get("Content-Length") != "0" {
			t.Errorf("%s: %d %q, length %s", operation, a.status, a.body, a.header.Get("Content-Length"))
		}
	}
}

// TestManyPairs: a context may have thousands of pairs, as long as the request is not too long, and each of them counts.
func TestManyPairs(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	pairs := make(map[string]string)
	for i := range 5000 {
		pairs[fmt.Sprintf("name-%d", i)] = fmt.Sprintf("value-%d", i)
	}
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("hello"), EncryptionContext: pairs})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(ctx, c, sealed.CiphertextBlob, pairs); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	for _, i := range []int{0, 2500, 4999} {
		name := fmt.Sprintf("name-%d", i)
		value := pairs[name]
		pairs[name] = value + "x"
		_, err := decrypt(ctx, c, sealed.CiphertextBlob, pairs)
		refused(t, "a changed pair", err, "InvalidCiphertextException", "")
		delete(pairs, name)
		_, err = decrypt(ctx, c, sealed.CiphertextBlob, pairs)
		refused(t, "a missing pair", err, "InvalidCiphertextException", "")
		pairs[name] = value
	}
}

const textTooLarge = "HTTP content length exceeded 200000 bytes."

// TestTooLarge: a body of 200,000 bytes is read, and one of 200,001 is not, whether its length is announced or comes to light.
func TestTooLarge(t *testing.T) {
	s := start(t, t.TempDir())
	key := *newKey(t, s.client()).KeyId
	sized := func(n int) string {
		body := `{"KeyId":"` + key + `","Plaintext":"YQ==","EncryptionContext":{"a":"`
		return body + strings.Repeat("x", n-len(body)-3) + `"}}`
	}
	if a := s.post(t, "Encrypt", sized(200_000)); a.status != http.StatusOK {
		t.Errorf("200,000 bytes: %d %s %s", a.status, a.code, a.message)
	}
	for _, n := range []int{200_001, 250_000, 1 << 20, 20 << 20} {
		body := sized(n)
		for _, chunked := range []bool{false, true} {
			head := s.head(t, "Encrypt", body)
			var rest string
			if chunked {
				head.Header.Set("Transfer-Encoding", "chunked")
				rest = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			} else {
				head.Header.Set("Content-Length", fmt.Sprint(n))
				rest = body
			}
			status, got := s.raw(t, headText(head)+rest)
			if status != http.StatusRequestEntityTooLarge || got != textTooLarge {
				t.Errorf("%d bytes, chunked %v: %d %q", n, chunked, status, got)
			}
		}
	}
	// Announced, and never sent: the answer does not wait for it.
	for _, n := range []string{"200001", "9223372036854775807"} {
		head := s.head(t, "Encrypt", "")
		head.Header.Set("Content-Length", n)
		if status, got := s.raw(t, headText(head)); status != http.StatusRequestEntityTooLarge || got != textTooLarge {
			t.Errorf("%s bytes announced: %d %q", n, status, got)
		}
	}
	// Many tiny chunks are as good as one.
	body := sized(2000)
	head := s.head(t, "Encrypt", body)
	head.Header.Set("Transfer-Encoding", "chunked")
	var chunks strings.Builder
	for i := range body {
		chunks.WriteString("1\r\n" + body[i:i+1] + "\r\n")
	}
	if status, got := s.raw(t, headText(head)+chunks.String()+"0\r\n\r\n"); status != http.StatusOK {
		t.Errorf("in chunks of one byte: %d %q", status, got)
	}
	s.works(t)
}

// head returns the signed head of a request whose body the caller sends.
func (s *server) head(t testing.TB, operation, body string) *http.Request {
	t.Helper()
	r := s.request(t, operation, nil)
	s.sign(t, r, []byte(body))
	return r
}

// headText writes the head of r as it is sent.
func headText(r *http.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST / HTTP/1.1\r\nHost: %s\r\n", r.URL.Host)
	r.Header.Write(&b)
	return b.String() + "\r\n"
}

// raw sends bytes as they are and returns the status and the body of the answer. A server may answer and hang up before it has read everything,
// so what becomes of the sending does not matter.
func (s *server) raw(t testing.TB, text string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.env["AWS_ENDPOINT_URL_KMS"], "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go io.WriteString(conn, text) // ends when the connection is closed
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("no answer to %.80q: %v", text, err)
		return 0, ""
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Errorf("half an answer to %.80q: %v", text, err)
	}
	return response.StatusCode, string(b)
}

// hangUp sends bytes and goes away.
func (s *server) hangUp(t testing.TB, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.env["AWS_ENDPOINT_URL_KMS"], "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Errorf("send %.80q: %v", text, err)
	}
}
