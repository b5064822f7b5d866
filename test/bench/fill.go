package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
	"strongroom/store"
)

// A filling says what is put into a store.
type filling struct {
	Keys   int
	Grants int
	Made   int // keys that the service itself makes, each with an object of its own in the token
}

// A filled is a rig of `strongroom dev` with a store that was filled, as its file scale.json says.
type filled struct {
	filling
	Sample    []string // ids of keys spread over all, each with a grant to the user
	Crowded   []string // ids of keys with crowd grants
	User      string   // ARN of who is allowed nothing but by grants
	AccessKey struct{ ID, Secret string }
	Seconds   float64 // that it took to fill the store
	Bytes     int64   // that the store has

	dir string
}

const (
	sampleSize = 4_000  // keys
	crowd      = 50_000 // grants on some keys: as many as a key can have
	crowdedMax = 20     // keys that have so many
	grantees   = 1_000  // users, among whom grants are spread
	fillBatch  = 20_000 // rows in a transaction
	aliasEach  = 10     // every tenth key has an alias
)

func (f *filled) storeFile() string { return filepath.Join(f.dir, "strongroom.db") }

// openFilled returns the rig in dir, which it makes and fills if it is not there.
//
// Keys and grants go into the store through the functions by which the service itself puts them there, and are copies, with ids of their own, of some that the
// service did make. A million keys are more than SoftHSM can hold; so only f.Made have an object, and the others share these: of those, Ref and check value are
// another key's, and all else is as it would be. Ids of grants ascend with those of their keys, because an index of ten million random ones could not be filled in
// an hour; so what lies near one another in a real store does so here too, or more so.
func openFilled(ctx context.Context, program, dir string, f filling) (*filled, error) {
	about := filepath.Join(dir, "scale.json")
	r := &filled{filling: f, dir: dir}
	switch b, err := os.ReadFile(about); {
	case err == nil:
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", about, err)
		}
		if r.filling != f {
			return nil, fmt.Errorf("%s holds %+v, not %+v", dir, r.filling, f)
		}
		return r, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	made, err := r.prepare(ctx, program)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", dir, err)
	}
	began := time.Now()
	db, err := store.Open(ctx, "sqlite:"+r.storeFile())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.fill(ctx, db, made), db.Close()); err != nil {
		return nil, fmt.Errorf("fill %s: %w", dir, err)
	}
	r.Seconds = time.Since(began).Seconds()
	info, err := os.Stat(r.storeFile())
	if err != nil {
		return nil, err
	}
	r.Bytes = info.Size()
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return r, os.WriteFile(about, b, 0o600)
}

// prepare makes the rig, the keys that the service makes, and the user. It returns the ids of the keys.
func (r *filled) prepare(ctx context.Context, program string) ([]string, error) {
	s, key, err := startDev(ctx, program, r.dir, nil)
	if err != nil {
		return nil, err
	}
	made := make([]string, r.Made)
	err = together(4, r.Made, func() (func(int) error, error) {
		c, err := dial(s.address)
		return func(i int) error {
			c.SetDeadline(time.Now().Add(patience))
			answer, err := c.do(key.request(s.address, "/", "CreateKey", []byte("{}")))
			var said struct{ KeyMetadata struct{ KeyId string } }
			if err == nil {
				err = json.Unmarshal(answer, &said)
			}
			made[i] = said.KeyMetadata.KeyId
			return err
		}, err
	})
	s.stop()
	if err != nil {
		return nil, err
	}
	var user struct{ User struct{ Arn string } }
	var access struct{ AccessKeyId, SecretAccessKey string }
	for _, command := range []struct {
		args []string
		into any
	}{
		{[]string{"user", "create", "app"}, &user},
		{[]string{"access-key", "create", "--user", "app"}, &access},
	} {
		cmd := exec.CommandContext(ctx, program, append(command.args, "--dir", r.dir, "--json")...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, command.into)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(command.args, " "), err)
		}
	}
	r.User, r.AccessKey.ID, r.AccessKey.Secret = user.User.Arn, access.AccessKeyId, access.SecretAccessKey
	return made, nil
}

// together has n things done by some at once, each of which begins with a call of start.
func together(some, n int, start func() (do func(int) error, err error)) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, some)
	for w := range some {
		wg.Go(func() {
			do, err := start()
			for err == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				err = do(i)
			}
			errs[w] = err
			next.Store(int64(n)) // the others need not go on
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fill puts the keys and grants into the store that are not there yet.
func (r *filled) fill(ctx context.Context, db *store.DB, made []string) error {
	models := make([]*kms.Key, len(made))
	err := db.View(ctx, func(tx kms.Tx) error {
		for i, text := range made {
			id, err := kms.ParseKeyID(text)
			if err != nil {
				return err
			}
			if models[i], err = tx.Key(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	users, err := r.users(ctx, db, models[0].Account)
	if err != nil {
		return err
	}

	// In ascending order, so that each index grows at its end.
	texts := slices.Clone(made)
	for len(texts) < r.Keys {
		texts = append(texts, newUUID())
	}
	slices.Sort(texts)
	there := make(map[string]bool)
	for _, text := range made {
		there[text] = true
	}
	each := max(1, r.Keys/sampleSize)
	crowded := min(crowdedMax, r.Grants/4/crowd)
	few := float64(r.Grants-crowded*crowd) / float64(r.Keys) // on each key

	w := &batch{ctx: ctx, db: db}
	n, granted := 0, 0
	for i, text := range texts {
		id, err := kms.ParseKeyID(text)
		if err != nil {
			return err
		}
		model := models[i%len(models)]
		if !there[text] {
			k := *model
			k.ID = id
			k.Materials = slices.Clone(k.Materials)
			rand.Read(k.Materials[0].ID[:])
			if err := w.add(func(tx kms.Tx) error { return tx.InsertKey(&k) }); err != nil {
				return err
			}
		}
		if i%aliasEach == 0 {
			a := &kms.Alias{Account: model.Account, Name: fmt.Sprintf("alias/scale/%07d", i), Key: id, Created: model.Created, Updated: model.Created}
			if err := w.add(func(tx kms.Tx) error { return tx.InsertAlias(a) }); err != nil {
				return err
			}
		}
		todo := int(few*float64(i+1)) - granted
		granted += todo
		sampled := i%each == 0 && len(r.Sample) < sampleSize
		if sampled {
			r.Sample = append(r.Sample, text)
			todo = max(todo, 1)
		}
		if crowded > 0 && i%(r.Keys/crowded) == r.Keys/crowded/2 {
			r.Crowded = append(r.Crowded, text)
			todo += crowd
		}
		for j := range todo {
			g := newGrant(n, r.Grants, id, model, users[mathrand.IntN(len(users))])
			n++
			if sampled && j == 0 {
				g.Grantee = r.User
				g.Constraint = kms.GrantConstraint{}
			}
			if err := w.add(func(tx kms.Tx) error { return tx.InsertGrant(g) }); err != nil {
				return err
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	return r.check(ctx, db, models[0])
}

// users makes the users to whom grants are, and returns their ARNs.
func (r *filled) users(ctx context.Context, db *store.DB, account string) ([]string, error) {
	admin, err := kms.NewAdmin(ctx, db, "bench")
	if err != nil {
		return nil, err
	}
	var arns []string
	for i := range min(grantees, r.Grants) {
		arn := kms.PrincipalARN{Partition: admin.Partition(), Account: account, Kind: kms.User, Name: fmt.Sprintf("user%04d", i)}
		if _, err := admin.CreatePrincipal(ctx, arn, nil); err != nil && !errors.Is(err, kms.ErrConflict) {
			return nil, err
		}
		arns = append(arns, arn.String())
	}
	return arns, nil
}

// check compares keys that were copied with one that the service made.
func (r *filled) check(ctx context.Context, db *store.DB, model *kms.Key) error {
	return db.View(ctx, func(tx kms.Tx) error {
		for _, text := range r.Sample[:min(10, len(r.Sample))] {
			id, err := kms.ParseKeyID(text)
			if err != nil {
				return err
			}
			k, err := tx.Key(id)
			if err != nil {
				return err
			}
			m, n := k.Materials, model.Materials
			if k.Account != model.Account || k.State != model.State || k.Description != model.Description || k.Policy != model.Policy || k.Rotation != model.Rotation ||
				!maps.Equal(k.Tags, model.Tags) || len(m) != len(n) || m[0].Reason != n[0].Reason || len(m[0].Ref) != len(n[0].Ref) || m[0].ID == (hsm.ID{}) {
				return fmt.Errorf("key %s is not like those that the service makes: %+v, %+v", text, k, model)
			}
			grants, err := tx.Grants(id, r.User, "", 10)
			if err != nil {
				return err
			}
			if len(grants) != 1 {
				return fmt.Errorf("key %s has %d grants to %s", text, len(grants), r.User)
			}
		}
		return nil
	})
}

// newGrant returns the n-th grant of many: most of them without constraint, some with one; some named, some to be retired.
func newGrant(n, many int, key kms.KeyID, model *kms.Key, grantee string) *kms.Grant {
	var id [32]byte
	rand.Read(id[:])
	step := ^uint64(0) / uint64(2*many+1)
	for i, v := 0, uint64(n+1)*step; i < 8; i, v = i+1, v<<8 {
		id[i] = byte(v >> 56)
	}
	g := &kms.Grant{
		ID: hex.EncodeToString(id[:]), Key: key, Grantee: grantee, Issuer: model.Account,
		Operations: 1<<0 | 1<<1 | 1<<2 | 1<<11 | 1<<12, // Decrypt, Encrypt, GenerateDataKey, DescribeKey, GenerateDataKeyPair
		Created:    model.Created,
	}
	if n%4 == 0 {
		g.Constraint.Subset = map[string]string{"tenant": fmt.Sprintf("t%06d", n)}
	}
	if n%10 == 0 {
		g.Retiring = grantee
	}
	if n%100 == 0 {
		g.Name = fmt.Sprintf("grant-%d", n)
	}
	return g
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x := hex.EncodeToString(b[:])
	return strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-")
}

// A batch collects changes into large transactions.
type batch struct {
	ctx  context.Context
	db   *store.DB
	todo []func(kms.Tx) error
}

func (b *batch) add(f func(kms.Tx) error) error {
	if b.todo = append(b.todo, f); len(b.todo) < fillBatch {
		return nil
	}
	return b.flush()
}

func (b *batch) flush() error {
	defer clear(b.todo)
	err := b.db.Update(b.ctx, func(tx kms.Tx) error {
		for _, f := range b.todo {
			if err := f(tx); err != nil {
				return err
			}
		}
		return nil
	})
	b.todo = b.todo[:0]
	return err
}
