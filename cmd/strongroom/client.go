package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/logging"
	"github.com/urfave/cli/v2"

	"strongroom/kms"
)

// clientHelp ends the help of every command that talks to a server.
const clientHelp = `

With --json, stdout is one JSON object: members are named as in the AWS KMS API, binary values are base64, times are
RFC 3339 in UTC. Members may be added later; none is renamed. Errors and notes go to stderr.

The server and the credentials are found as by any AWS program: AWS_ENDPOINT_URL_KMS, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_CA_BUNDLE, AWS_PROFILE. Flags may stand anywhere.

Exit codes: 0 done, 1 failed, 2 used wrongly and nothing was done.`

// keyHelp is for commands whose KEY goes to the server.
const keyHelp = `

KEY is a key id, a key ARN, or an alias with or without "alias/".`

// clientCommand completes a command that talks to a server: with the flags that say which, with what all of their help has in common, and
// without the subcommand "help", which would make that word and "h" unusable as arguments.
func clientCommand(cmd *cli.Command) *cli.Command {
	cmd.Description += clientHelp
	cmd.Flags = append(cmd.Flags,
		jsonFlag(),
		cli.HelpFlag, // the parser adds it too, but too late for the list of flags in its own help
		&cli.StringFlag{Name: "endpoint", Usage: "`URL` of the server, or unix:/path/to.sock (default: as configured for AWS programs)", Category: "Server"},
		&cli.StringFlag{Name: "region", Usage: "`REGION` of the server (default: as configured, or " + defaultRegion + ")", Category: "Server"},
		&cli.StringFlag{Name: "profile", Usage: "`NAME` of a profile in the AWS configuration files", Category: "Server"},
		&cli.DurationFlag{Name: "timeout", Usage: "wait this `TIME` for each answer", Value: 30 * time.Second, Category: "Server"},
	)
	cmd.HideHelpCommand = true
	cmd.OnUsageError = onUsageError
	cmd.BashComplete = completeCommand(cmd)
	return cmd
}

const defaultRegion = "local-1"

// A client is what a command talks to a server through. It is safe for concurrent use.
type client struct {
	*awskms.Client
	endpoint string // as the person wrote it
	timeout  time.Duration
}

// connect returns a client for the server that c names. It sends nothing to it.
func connect(c *cli.Context) (*client, error) {
	s := &client{timeout: c.Duration("timeout")}
	if s.timeout <= 0 {
		return nil, misuse("--timeout %s: must be more than nothing", s.timeout)
	}
	cfg, err := config.LoadDefaultConfig(c.Context,
		config.WithRegion(c.String("region")), // the empty region, profile, … is none
		config.WithSharedConfigProfile(c.String("profile")),
		config.WithDefaultRegion(defaultRegion),
		config.WithEC2IMDSClientEnableState(imds.ClientDisabled), // nobody asked to send anything there
		config.WithRetryer(newRetryer),
		config.WithLogger(logging.Nop{}), // what it has to say is in the errors, for those who can use it
	)
	if err != nil {
		return nil, configError(err)
	}
	s.Client = awskms.NewFromConfig(cfg, func(o *awskms.Options) {
		if e := c.String("endpoint"); e != "" {
			o.BaseEndpoint = &e
		}
		s.endpoint = aws.ToString(o.BaseEndpoint)
		if path, ok := strings.CutPrefix(s.endpoint, "unix:"); ok {
			o.BaseEndpoint = aws.String("http://localhost")
			o.HTTPClient = socketClient(path)
		}
	})
	if err := s.checkEndpoint(); err != nil {
		return nil, err
	}
	if _, err := cfg.Credentials.Retrieve(c.Context); err != nil {
		return nil, credentialsError(err)
	}
	return s, nil
}

// checkEndpoint refuses to go on without an endpoint: the SDK would send the request, and with it names of keys and what is to be encrypted, to AWS.
func (s *client) checkEndpoint() error {
	if s.endpoint == "" {
		return hint(misuse("no server is named, and AWS itself is not meant"),
			"strongroom … --endpoint https://kms.example.com, or unix:/path/to.sock",
			"export AWS_ENDPOINT_URL_KMS=https://kms.example.com",
			"for a server that strongroom dev started:  . DIR/env")
	}
	if path, ok := strings.CutPrefix(s.endpoint, "unix:"); ok {
		if path == "" {
			return misuse("endpoint %q: a path must follow", s.endpoint)
		}
		return nil
	}
	u, err := url.Parse(s.endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return misuse("endpoint %q: is neither https://HOST[:PORT], http://HOST[:PORT] nor unix:/path/to.sock", s.endpoint)
	}
	return nil
}

// socketClient returns an HTTP client that reaches every host through one socket.
func socketClient(path string) aws.HTTPClient {
	if rest, ok := strings.CutPrefix(path, "//"); ok { // unix:///path
		path = rest
	}
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	})
}

// newRetryer returns the SDK's standard one, except that a server that cannot be reached at all, or is not the right one, is not tried again:
// somebody is waiting to hear it.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			op, ok := errors.AsType[*net.OpError](err)
			_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
			if ok && op.Op == "dial" || untrusted {
				return aws.FalseTernary
			}
			return aws.UnknownTernary
		})}, o.Retryables...)
	})
}

// once is an option of a call that would be done twice if it was sent again after its answer was lost.
func once(o *awskms.Options) { o.RetryMaxAttempts = 1 }

// call asks the server for one thing and waits for the answer as long as the person said. what says what failed, if it does.
func call[In, Out any](ctx context.Context, s *client, what string, method func(context.Context, *In, ...func(*awskms.Options)) (*Out, error), in *In, options ...func(*awskms.Options)) (*Out, error) {
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	out, err := method(limited, in, options...)
	switch {
	case err == nil:
		return out, nil
	case errorCode(err) != "":
		return nil, refusal(what, err)
	case ctx.Err() != nil:
		return nil, &failure{what, "interrupted", err}
	case limited.Err() != nil:
		return nil, hint(&failure{what, fmt.Sprintf("no answer from %s within %s", s.endpoint, s.timeout), err},
			"it is not known whether the server did it", "--timeout 2m waits longer")
	}
	return nil, s.noAnswer(what, err)
}

// keyName returns KEY as the server takes it: what is neither a key id nor an ARN is an alias, whose prefix people leave out.
func keyName(key string) string {
	if _, err := kms.ParseKeyID(key); err == nil || strings.HasPrefix(key, "arn:") {
		return key
	}
	return aliasName(key)
}

// aliasName returns the name of an alias with its prefix.
func aliasName(name string) string {
	if strings.HasPrefix(name, "alias/") {
		return name
	}
	return "alias/" + name
}

// keyItself returns a name of the key that KEY means which is no alias, for the calls that take none.
func (s *client) keyItself(ctx context.Context, key string) (string, error) {
	key = keyName(key)
	if !strings.HasPrefix(key, "alias/") && !strings.Contains(key, ":alias/") {
		return key, nil
	}
	out, err := call(ctx, s, "find key "+key, s.DescribeKey, &awskms.DescribeKeyInput{KeyId: &key})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.KeyMetadata.KeyId), nil
}

// arguments returns the arguments that c was given if they are as many as have names.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	given := c.Args().Slice()
	switch {
	case len(given) < len(names):
		return nil, hint(misuse("%s is missing", names[len(given)]), c.Command.HelpName+" --help")
	case len(given) > len(names):
		return nil, hint(misuse("%q is one argument too many", given[len(names)]), c.Command.HelpName+" --help")
	}
	for i, arg := range given {
		if arg == "" {
			return nil, misuse("%s is empty", names[i])
		}
	}
	return given, nil
}

// argument is arguments for one.
func argument(c *cli.Context, name string) (string, error) {
	args, err := arguments(c, name)
	if err != nil {
		return "", err
	}
	return args[0], nil
}

// needKey returns the key that --key names. The parser's own check of what is required would print the whole help and exit with 1.
func needKey(c *cli.Context) (string, error) {
	if c.String("key") == "" {
		return "", hint(misuse("--key is missing"), c.Command.HelpName+" --help")
	}
	return keyName(c.String("key")), nil
}

func keyFlag() cli.Flag {
	return &cli.StringFlag{Name: "key", Usage: "`KEY` to use: a key id, an ARN or an alias"}
}
