-- What each of the latest generations changed, so that who remembers something forgets that and no more: see kms.Store, Changes. A generation without a row may
-- have changed anything. What the first migration says of types is true of this one.
CREATE TABLE change (
	generation BIGINT NOT NULL,
	kind       TEXT   NOT NULL,
	name       TEXT   NOT NULL,
	PRIMARY KEY (generation, kind, name)
);
