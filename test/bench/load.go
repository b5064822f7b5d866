package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// An op is a request that is measured.
type op struct {
	name   string // in the table
	target string // the operation of KMS
	body   []byte
	slow   bool // RSA: fewer requests, since each is a search for primes
	size   int  // of an answer, as the first one was
}

// pairSpecs are the specs of data key pairs, and whether making one is slow.
var pairSpecs = []struct {
	name string
	slow bool
}{
	{"RSA_2048", true}, {"RSA_3072", true}, {"RSA_4096", true},
	{"ECC_NIST_P256", false}, {"ECC_NIST_P384", false}, {"ECC_NIST_P521", false},
	{"ECC_SECG_P256K1", false}, {"ECC_NIST_EDWARDS25519", false}, {"SM2", false},
}

// prepare makes a key and a ciphertext, and asks for each operation whose name matches once, to see that it works and how long an answer is.
func prepare(address string, key accessKey, match *regexp.Regexp) ([]*op, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	ask := func(target string, in, out any) ([]byte, error) {
		body, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		answer, err := c.do(key.request(address, "/", target, body))
		if err == nil {
			err = json.Unmarshal(answer, out)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
		return body, nil
	}

	type object map[string]any
	var made struct{ KeyMetadata struct{ KeyId string } }
	if _, err := ask("CreateKey", object{}, &made); err != nil {
		return nil, err
	}
	plaintext := bytes.Repeat([]byte{0x42}, 32)
	encryptionContext := object{"purpose": "bench"}
	var sealed struct{ CiphertextBlob []byte }
	encrypt := object{"KeyId": made.KeyMetadata.KeyId, "Plaintext": plaintext, "EncryptionContext": encryptionContext}
	if _, err := ask("Encrypt", encrypt, &sealed); err != nil {
		return nil, err
	}
	decrypt := object{"CiphertextBlob": sealed.CiphertextBlob, "EncryptionContext": encryptionContext}
	var opened struct{ Plaintext []byte }
	if _, err := ask("Decrypt", decrypt, &opened); err != nil {
		return nil, err
	}
	if !bytes.Equal(opened.Plaintext, plaintext) {
		return nil, errors.New("decrypting gives another plaintext than was encrypted")
	}

	var ops []*op
	add := func(o op, in object) error {
		if !match.MatchString(o.name) {
			return nil
		}
		var any json.RawMessage
		if o.body, err = ask(o.target, in, &any); err != nil {
			return err
		}
		o.size = len(any)
		ops = append(ops, &o)
		return nil
	}
	err = errors.Join(
		add(op{name: "Encrypt", target: "Encrypt"}, encrypt),
		add(op{name: "Decrypt", target: "Decrypt"}, decrypt),
		add(op{name: "GenerateDataKey", target: "GenerateDataKey"},
			object{"KeyId": made.KeyMetadata.KeyId, "KeySpec": "AES_256", "EncryptionContext": encryptionContext}))
	for _, spec := range pairSpecs {
		err = errors.Join(err, add(op{name: "GenerateDataKeyPair " + spec.name, target: "GenerateDataKeyPair", slow: spec.slow},
			object{"KeyId": made.KeyMetadata.KeyId, "KeyPairSpec": spec.name, "EncryptionContext": encryptionContext}))
	}
	return ops, err
}

const (
	rounds   = 4       // A B A B A B A B
	slowMin  = 6       // requests in a slice of a slow operation
	sliceMax = 200_000 // requests in any slice
	patience = 3 * time.Minute
)

// measure asks both servers for one operation, in turns, for the given time each.
func measure(ctx context.Context, o *op, clients int, length time.Duration, full, empty string, key accessKey) (cell, error) {
	a, err := dialAll(full, clients)
	if err != nil {
		return cell{}, err
	}
	defer hangUp(a)
	b, err := dialAll(empty, clients)
	if err != nil {
		return cell{}, err
	}
	defer hangUp(b)

	n, least := rounds, clients
	if o.slow {
		n, least = 2, max(clients, slowMin)
	}
	if o.slow && clients > 2*slowMin {
		n = 1 // so many at once are a mean already
	}
	var as, bs []slice
	for range n {
		s, err := load(ctx, a, key.request(full, "/", o.target, o.body), o.size, o.size/20+16, least, length/time.Duration(n))
		if err != nil {
			return cell{}, err
		}
		as = append(as, s)
		s, err = load(ctx, b, key.request(empty, "/"+strconv.Itoa(o.size), o.target, o.body), o.size, 0, clients, length/time.Duration(n))
		if err != nil {
			return cell{}, fmt.Errorf("the empty server: %w", err)
		}
		bs = append(bs, s)
	}
	c := cell{Operation: o.name, Clients: clients, rate: summarize(as), Empty: summarize(bs)}
	c.Ratio = c.PerSecond / c.Empty.PerSecond
	return c, nil
}

// A slice is what one server did without a break.
type slice struct {
	elapsed   time.Duration
	latencies []time.Duration
}

// load sends a request over all connections at once, each waiting for its answer before it sends the next, for a time: at
// least as often as least says, whatever the time. An answer that is not 200, or whose size is further than slack from size, is an error.
func load(ctx context.Context, conns []*conn, request []byte, size, slack, least int, length time.Duration) (slice, error) {
	var (
		wg    sync.WaitGroup
		begun atomic.Int64
		gate  = make(chan struct{})
		start time.Time
	)
	for _, c := range conns {
		c.latencies, c.err = c.latencies[:0], nil
		c.SetDeadline(time.Now().Add(length + patience))
		wg.Go(func() {
			<-gate
			for {
				began := time.Now()
				n := begun.Add(1)
				if n > sliceMax || n > int64(least) && began.Sub(start) >= length || ctx.Err() != nil {
					return
				}
				var answer []byte
				if answer, c.err = c.do(request); c.err != nil {
					begun.Add(sliceMax) // the others need not go on
					return
				}
				c.latencies = append(c.latencies, time.Since(began))
				if d := len(answer) - size; d > slack || -d > slack || answer[0] != '{' {
					c.err = fmt.Errorf("an answer of %d bytes, where %d were expected", len(answer), size)
					begun.Add(sliceMax)
					return
				}
			}
		})
	}
	start = time.Now()
	close(gate)
	wg.Wait()
	s := slice{elapsed: time.Since(start)}
	for _, c := range conns {
		if c.err != nil {
			return s, c.err
		}
		s.latencies = append(s.latencies, c.latencies...)
	}
	return s, ctx.Err()
}

// summarize returns the median of the slices' rates, and the latencies of all their requests.
func summarize(parts []slice) rate {
	var rates []float64
	var all []time.Duration
	for _, s := range parts {
		rates = append(rates, float64(len(s.latencies))/s.elapsed.Seconds())
		all = append(all, s.latencies...)
	}
	slices.Sort(rates)
	slices.Sort(all)
	at := func(q float64) float64 {
		return all[int(q*float64(len(all)-1)+0.5)].Seconds() * 1000
	}
	middle := len(rates) / 2
	return rate{
		PerSecond: (rates[middle] + rates[(len(rates)-1)/2]) / 2,
		P50:       at(0.50),
		P99:       at(0.99),
		Requests:  len(all),
	}
}

// A conn is a client: one connection of HTTP/1.1 that is kept. It does as little as it can, because it takes processors from the server.
type conn struct {
	net.Conn
	r         *bufio.Reader
	body      []byte
	latencies []time.Duration
	err       error
}

func dial(address string) (*conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 16<<10)}, nil
}

// dialAll opens connections and has each answer once, so that nothing of that is measured. Any answer will do.
func dialAll(address string, n int) ([]*conn, error) {
	var conns []*conn
	for range n {
		c, err := dial(address)
		if err == nil {
			conns = append(conns, c)
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.do([]byte("GET /healthz HTTP/1.1\r\nHost: " + address + "\r\n\r\n"))
		}
		if err != nil && !errors.As(err, new(statusError)) {
			hangUp(conns)
			return nil, err
		}
	}
	return conns, nil
}

func hangUp(conns []*conn) {
	for _, c := range conns {
		c.Close()
	}
}

// A statusError is an answer other than 200.
type statusError struct{ line, body string }

func (e statusError) Error() string { return "answered " + e.line + ": " + e.body }

var (
	status200     = []byte("HTTP/1.1 200 ")
	contentLength = []byte("Content-Length: ")
)

// do sends a request and returns the body of the answer, which is good until the next call. It understands what net/http sends.
func (c *conn) do(request []byte) ([]byte, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	var status string
	if !bytes.HasPrefix(line, status200) {
		status = string(bytes.TrimSpace(line))
	}
	size := -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		if bytes.HasPrefix(line, contentLength) {
			size = 0
			for _, digit := range line[len(contentLength) : len(line)-2] {
				size = size*10 + int(digit-'0')
			}
		}
	}
	if size < 1 || size > maxAnswer {
		if status != "" {
			return nil, statusError{line: status}
		}
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	c.body = slices.Grow(c.body[:0], size)[:size]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return nil, err
	}
	if status != "" {
		return nil, statusError{status, string(c.body)}
	}
	return c.body, nil
}
