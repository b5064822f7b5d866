package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:         "serve",
		OnUsageError: onUsageError,
		Usage:        "answer requests, until it is told to stop",
		Description: `Serves the deployment that init made. It makes nothing itself but the audit log: a missing store, a token without this
deployment's keys and a wrong PIN are errors, and a PIN is tried once: one that was refused is not tried again at the
next start either. The PKCS#11 module runs in worker processes, which are replaced when they hang, crash or lose the token. Key pairs are made ahead of
demand by processes that give way to all other work. SIGTERM and SIGINT let the requests in flight
finish and end it with exit code 0. SIGHUP begins the next file of the audit log, so that the one before can be moved away.

GET /healthz says that the process lives; GET /readyz that the store answers, the audit log can be written, and the token encrypts
and decrypts. With metrics in the configuration, GET /metrics on that address is for Prometheus.

Example:  strongroom serve --config /etc/strongroom/strongroom.toml`,
		Flags: []cli.Flag{configFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			ctx := c.Context
			config, err := loadConfig(ctx, c.String("config"))
			if err != nil {
				return err
			}
			log := newLogger(c.App.ErrWriter, config.LogLevel)
			hardenProcess(log)
			tuneRuntime(config.Cache)
			o, err := config.rig(ctx)
			if err != nil {
				return err
			}
			r, err := openRig(ctx, log, o)
			if err != nil {
				return err
			}
			defer r.close()
			if got := r.service.Region(); got != config.Region {
				return hint(fmt.Errorf("the configuration says region %q, the deployment was made with %q", config.Region, got), fmt.Sprintf("region = %q", got))
			}
			if got := r.service.Partition(); got != config.Partition {
				return hint(fmt.Errorf("the configuration says partition %q, the deployment was made with %q", config.Partition, got), fmt.Sprintf("partition = %q", got))
			}
			l, err := listen(ctx, log, config.Listen, config.TLS)
			if err != nil {
				return err
			}
			if err := r.listenMetrics(ctx, config.Metrics); err != nil {
				return err
			}
			info := r.token.Info()
			log.Info("serving", "address", l.Addr().String(), "tls", config.TLS.Certificate != "", "token", info.Label, "serial", info.Serial,
				"model", info.Model, "region", config.Region, "audit", config.Audit.Dir, "version", version())
			if err := r.serve(ctx, l); err != nil {
				return err
			}
			log.Info("stopped")
			return nil
		},
	}
}
