-- Users and roles, grants, rotation, and what the audit log and the last use of keys need. What the first migration says of types, times and
-- text is true of this one.

-- A key in the token that serves the server itself. The first one, which seals the secrets of access keys, was a part of the deployment.
CREATE TABLE system_key (
	name TEXT  NOT NULL PRIMARY KEY,
	id   BYTEA NOT NULL UNIQUE CHECK (length(id) = 16),
	ref  BYTEA CHECK (length(ref) BETWEEN 1 AND 256) -- none while the object is being made
);
INSERT INTO system_key (name, id, ref) SELECT sealer_name, sealer_id, sealer_ref FROM deployment;
ALTER TABLE deployment DROP COLUMN sealer_name;
ALTER TABLE deployment DROP COLUMN sealer_id;
ALTER TABLE deployment DROP COLUMN sealer_ref;
ALTER TABLE deployment ADD COLUMN usage_since BIGINT; -- none in a store from before this migration, until a server has opened it

-- A user or a role. One that was deleted stays as a row, so that its name stays taken.
CREATE TABLE principal (
	id      TEXT   NOT NULL PRIMARY KEY,
	account TEXT   NOT NULL REFERENCES account (id),
	kind    TEXT   NOT NULL,
	name    TEXT   NOT NULL,
	created BIGINT NOT NULL,
	deleted BIGINT,
	UNIQUE (account, kind, name)
);
CREATE TABLE principal_tag (
	principal_id TEXT NOT NULL REFERENCES principal (id),
	name         TEXT NOT NULL,
	value        TEXT NOT NULL,
	PRIMARY KEY (principal_id, name)
);
CREATE TABLE principal_policy (
	principal_id TEXT NOT NULL REFERENCES principal (id),
	name         TEXT NOT NULL,
	document     TEXT NOT NULL,
	PRIMARY KEY (principal_id, name)
);

ALTER TABLE credential ADD COLUMN last_used BIGINT;
ALTER TABLE credential ADD COLUMN session TEXT NOT NULL DEFAULT '';         -- none for an access key that is no session
ALTER TABLE credential ADD COLUMN expires BIGINT;
ALTER TABLE credential ADD COLUMN token BYTEA CHECK (length(token) = 32); -- SHA-256 of the session token
CREATE INDEX credential_of_principal ON credential (principal, id);
CREATE INDEX credential_expiring ON credential (expires, id) WHERE expires IS NOT NULL;

ALTER TABLE kms_key ADD COLUMN rotation_days BIGINT NOT NULL DEFAULT 0; -- 0 for never
ALTER TABLE kms_key ADD COLUMN next_rotation BIGINT;
CREATE INDEX kms_key_to_rotate ON kms_key (state, next_rotation, id) WHERE next_rotation IS NOT NULL;

ALTER TABLE material ADD COLUMN reason TEXT NOT NULL DEFAULT ''; -- none for the first of a key
-- Few, whatever the number of keys: those that are being made.
CREATE INDEX material_being_made ON material (key_id, ordinal) WHERE ref IS NULL;

-- The last use of a key.
CREATE TABLE key_use (
	key_id     TEXT   NOT NULL PRIMARY KEY REFERENCES kms_key (id),
	operation  TEXT   NOT NULL,
	used       BIGINT NOT NULL,
	event_id   TEXT   NOT NULL,
	request_id TEXT   NOT NULL
);

-- Events on their way to the audit log. Their numbers come from a row that each transaction which inserts one holds until its end: so the order
-- of the numbers is that of the transactions, none appears later than a higher one, and none is given twice, also when the table was emptied.
CREATE TABLE event_sequence (
	one           BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
	last_sequence BIGINT NOT NULL
);
INSERT INTO event_sequence (one, last_sequence) VALUES (1, 0);
CREATE TABLE event (
	sequence BIGINT NOT NULL PRIMARY KEY,
	body     BYTEA  NOT NULL
);

CREATE TABLE kms_grant (
	id             TEXT   NOT NULL PRIMARY KEY,
	key_id         TEXT   NOT NULL REFERENCES kms_key (id),
	name           TEXT,            -- none for a grant without
	grantee        TEXT   NOT NULL,
	retiring       TEXT,            -- none for nobody
	issuer         TEXT   NOT NULL,
	operations     BIGINT NOT NULL, -- a bit for each
	context_equals TEXT,            -- JSON; none is not the same as an empty object
	context_subset TEXT,            -- JSON; likewise
	source_arn     TEXT   NOT NULL,
	found_by       BYTEA  NOT NULL CHECK (length(found_by) = 16),
	created        BIGINT NOT NULL
);
-- One index for each question, because there may be fifty thousand grants on a key and millions on all.
CREATE INDEX kms_grant_of_key ON kms_grant (key_id, id);
CREATE INDEX kms_grant_to_grantee ON kms_grant (key_id, grantee, id);
CREATE INDEX kms_grant_for ON kms_grant (key_id, grantee, operations);
CREATE INDEX kms_grant_found ON kms_grant (key_id, grantee, found_by, operations);
CREATE INDEX kms_grant_named ON kms_grant (key_id, name, grantee, found_by, operations, id) WHERE name IS NOT NULL;
CREATE INDEX kms_grant_retirable ON kms_grant (retiring, id) WHERE retiring IS NOT NULL;

-- What the audit log was when it was last signed. One row, or none before the first signature.
CREATE TABLE audit_anchor (
	one      BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
	log      TEXT   NOT NULL,
	sequence BIGINT NOT NULL,
	hash     BYTEA  NOT NULL CHECK (length(hash) = 32),
	file     BIGINT NOT NULL
);
