-- How often a key in the token may have been used to encrypt: see Tx.MaterialUses. What the first migration says of types is true of this one.
ALTER TABLE material ADD COLUMN uses BIGINT NOT NULL DEFAULT 0 CHECK (uses >= 0);

-- Uses before this migration were not counted. A material from then begins at 2^29, a quarter of what it may be used, so that it is rotated sooner
-- and not all of what is left without being counted (kms.DefaultSealLimit) has to answer for the past.
UPDATE material SET uses = 536870912;
