package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/kms"
)

// A watched token is one of which no call lasts longer than it may. After one that hangs, nothing more is asked of it.
type watched struct {
	token hsm.Inspector
	hung  error
}

func watch[T any](ctx context.Context, w *watched, f func(context.Context) (T, error)) (T, error) {
	var none T
	if w.hung != nil {
		return none, w.hung
	}
	v, err := bounded(ctx, callLimit, f)
	if errors.Is(err, errHangs) {
		w.hung = fmt.Errorf("%w: a call in the PKCS#11 module does not end: %v", hsm.ErrUnavailable, err)
		return none, w.hung
	}
	return v, err
}

func (w *watched) Survey(ctx context.Context) ([]hsm.Holding, error) {
	if w.hung != nil {
		return nil, w.hung
	}
	all, err := bounded(ctx, surveyLimit, w.token.Survey)
	if errors.Is(err, errHangs) {
		w.hung = fmt.Errorf("%w: listing the objects of the token does not end: %v", hsm.ErrUnavailable, err)
		return nil, w.hung
	}
	return all, err
}

func (w *watched) Prove(ctx context.Context, id hsm.ID, ref hsm.Ref) error {
	_, err := watch(ctx, w, func(ctx context.Context) (struct{}, error) { return struct{}{}, w.token.Prove(ctx, id, ref) })
	return err
}

func (w *watched) Promises(ctx context.Context, ref hsm.Ref) (string, error) {
	return watch(ctx, w, func(ctx context.Context) (string, error) { return w.token.Promises(ctx, ref) })
}

func (w *watched) Refer(ctx context.Context, id hsm.ID) (hsm.Ref, error) {
	return watch(ctx, w, func(ctx context.Context) (hsm.Ref, error) { return w.token.Refer(ctx, id) })
}

// examineToken opens the token, in this process, with the PIN.
func (d *doctor) examineToken(ctx context.Context, p *part) func() {
	const why = "no key can be used"
	if d.rig == nil && len(d.faults) > 0 {
		p.skip("the token is not opened with a configuration that has faults")
		return nil
	}
	c, err := d.tokenConfig(ctx)
	if err == nil && d.rig == nil && d.pinError != nil {
		p.fail("no-pin", d.configPath+": hsm.pin_file", fmt.Sprintf("the PIN cannot be read: %v", d.pinError), "serve cannot log in to the token", strings.TrimPrefix(hintsOf(d.pinError), "; "))
		return nil
	}
	if err != nil {
		p.fail("token-open", d.tokenDir, err.Error(), why, "bring the token's directory back")
		return nil
	}
	c.SessionCopies = false // what the token keeps is to be proved, and not copies
	token, err := bounded(ctx, openLimit, func(ctx context.Context) (*pkcs11.Token, error) { return pkcs11.Open(ctx, c) })
	switch {
	case errors.Is(err, pkcs11.ErrPIN):
		refused := fmt.Errorf("open the token: %w", err)
		p.fail("pin-refused", c.Module, err.Error(), "the token counts wrong PINs and may lock; serve ends with exit code 3",
			"find the right PIN before anything tries again; stop whatever starts the server by itself"+hintsOf(err))
		return func() { d.refusedPIN = refused }
	case errors.Is(err, errHangs):
		p.fail("token-hangs", c.Module, fmt.Sprintf("the PKCS#11 module hangs: opening the token did not end: %v", err), why,
			"look at the HSM, at the network on the way to it, and at the vendor's client on this host")
		return nil
	case err != nil:
		p.fail("token-open", c.Module, err.Error(), why, "look at the HSM and at hsm.module, hsm.token_label and hsm.token_serial")
		return nil
	}
	publish := func() { d.token = token }
	info := token.Info()
	p.ok("token %v of %s, %s %s: the PIN is right, the canary key encrypts and decrypts", info, info.Library, info.Manufacturer, info.Model)

	switch s := token.PINState(); {
	case s.CountLow:
		p.warn("pin-counted", info.String(), "the token had counted wrong PINs since the last right one", "somebody or something tries PINs; after enough of them the token locks",
			"find out who: a second server, a script, another program with this token")
	case s.Change:
		p.warn("pin-to-change", info.String(), "the token wants its user PIN changed", "some refuse all but that after a while", "change it with the tools of the HSM, and in hsm.pin_file")
	default:
		p.ok("no wrong PIN is being counted")
	}
	if have := token.Sessions(); d.config != nil && have < d.config.HSM.Sessions {
		p.note("sessions", info.String(), fmt.Sprintf("has %d sessions for encryption, and hsm.sessions is %d", have, d.config.HSM.Sessions), "the server uses as many as there are", "")
	}
	if d.db == nil || d.deployment == nil {
		p.skip("whether it is the deployment's: there is no deployment to compare it with")
		return publish
	}

	var db kms.Store = d.db
	err = kms.ProveToken(ctx, &watched{token: token}, db)
	switch {
	case errors.Is(err, hsm.ErrNoKey):
		p.fail("other-token", info.String(), fmt.Sprintf("is not the token of this store: it does not hold the key that seals secrets (%v)", err), "nothing of the store can be used with it, and serve does not start",
			fmt.Sprintf("check hsm.token_label or hsm.token_serial, and store; the deployment was made with serial number %s", d.deployment.TokenSerial))
		return publish
	case err != nil:
		p.fail("token-use", info.String(), fmt.Sprintf("cannot be used: %v", err), why, "look at the HSM")
		return publish
	}
	if info.Serial != d.deployment.TokenSerial {
		p.warn("token-serial", info.String(), fmt.Sprintf("has the deployment's keys, but the deployment was made on serial number %s", d.deployment.TokenSerial),
			"a copy, or what an HSM was restored to, may lack keys that were made later", "see that no other copy is in use")
	} else {
		p.ok("it is the one that the deployment was made on, and holds the key that seals secrets")
	}
	var key []byte
	signer, err := bounded(ctx, callLimit, func(ctx context.Context) (*kms.AuditSigner, error) { return kms.FindAuditSigner(ctx, token, db) })
	switch {
	case err == nil:
		key = signer.PublicKey()
		p.ok("it signs with the key of the audit log")
	case errors.Is(err, kms.ErrNotStored):
		p.note("no-signer", info.String(), "there is no key yet that signs the audit log", "the first start of the server makes it", "")
	default:
		p.fail("signer", info.String(), fmt.Sprintf("the key that signs the audit log cannot be used: %v", err), "serve does not start", "look at the HSM; see the part about keys below")
	}
	return func() { publish(); d.ours, d.key = true, key }
}
