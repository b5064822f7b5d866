-- The first schema. It is written once for SQLite and PostgreSQL: TEXT, BIGINT and BYTEA mean the same in both (SQLite
-- gives a BYTEA column the affinity NUMERIC, which leaves byte strings as they are). Times are milliseconds since 1970 in
-- UTC. Text compares byte by byte: SQLite does so by itself; a PostgreSQL database for this schema has the locale C.
--
-- States are not listed in a CHECK, because SQLite cannot change one later; the program refuses those it does not know,
-- when it writes and when it reads.

-- Counts the transactions that changed something. One row.
CREATE TABLE generation (
	one   BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
	value BIGINT NOT NULL
);
INSERT INTO generation (one, value) VALUES (1, 1);

-- What the store belongs to. One row, or none before init.
CREATE TABLE deployment (
	one           BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
	id            TEXT   NOT NULL,
	created       BIGINT NOT NULL,
	aws_partition TEXT   NOT NULL,
	aws_region    TEXT   NOT NULL,
	token_serial  TEXT   NOT NULL,
	sealer_name   TEXT   NOT NULL, -- the key in the token that seals the secrets of access keys
	sealer_id     BYTEA  NOT NULL CHECK (length(sealer_id) = 16),
	sealer_ref    BYTEA  NOT NULL
);

CREATE TABLE account (
	id      TEXT   NOT NULL PRIMARY KEY,
	created BIGINT NOT NULL
);

CREATE TABLE credential (
	id        TEXT   NOT NULL PRIMARY KEY,
	account   TEXT   NOT NULL REFERENCES account (id),
	principal TEXT   NOT NULL,
	active    BIGINT NOT NULL CHECK (active IN (0, 1)),
	created   BIGINT NOT NULL,
	sealed    BYTEA  NOT NULL -- the secret access key, sealed in the token
);

CREATE TABLE kms_key (
	id            TEXT   NOT NULL PRIMARY KEY,
	account       TEXT   NOT NULL REFERENCES account (id),
	state         TEXT   NOT NULL,
	description   TEXT   NOT NULL,
	created       BIGINT NOT NULL,
	deletion_date BIGINT,
	policy        TEXT   NOT NULL
);
-- Each list of keys is answered from its index alone.
CREATE INDEX kms_key_of_account ON kms_key (account, id, state);
CREATE INDEX kms_key_in_state ON kms_key (state, deletion_date, id);

CREATE TABLE tag (
	key_id TEXT NOT NULL REFERENCES kms_key (id),
	name   TEXT NOT NULL,
	value  TEXT NOT NULL,
	PRIMARY KEY (key_id, name)
);

CREATE TABLE material (
	id      BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
	key_id  TEXT   NOT NULL REFERENCES kms_key (id),
	ordinal BIGINT NOT NULL,                                -- 0 for the oldest
	ref     BYTEA  CHECK (length(ref) BETWEEN 1 AND 256), -- none while the object is being made
	created BIGINT NOT NULL,
	UNIQUE (key_id, ordinal)
);

CREATE TABLE alias (
	account TEXT   NOT NULL REFERENCES account (id),
	name    TEXT   NOT NULL,
	key_id  TEXT   NOT NULL REFERENCES kms_key (id),
	created BIGINT NOT NULL,
	updated BIGINT NOT NULL,
	PRIMARY KEY (account, name)
);
CREATE INDEX alias_of_key ON alias (key_id, account, name);

-- What is left of a key that was destroyed, so that an old ciphertext can be told from a foreign one.
CREATE TABLE tombstone (
	key_id    TEXT   NOT NULL PRIMARY KEY,
	account   TEXT   NOT NULL REFERENCES account (id),
	destroyed BIGINT NOT NULL
);
CREATE TABLE tombstone_material (
	id     BYTEA NOT NULL PRIMARY KEY CHECK (length(id) = 16),
	key_id TEXT  NOT NULL REFERENCES tombstone (key_id)
);
CREATE INDEX tombstone_material_of_key ON tombstone_material (key_id);
