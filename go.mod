module strongroom

go 1.26.0

require (
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1
	github.com/emmansun/gmsm v0.44.0
	golang.org/x/crypto v0.58.0
)

require github.com/mattn/go-sqlite3 v1.14.53
