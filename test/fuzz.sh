#!/bin/sh
# Runs every fuzz target for the time given: go test -fuzz takes one package and one target at a time.
set -eu
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# fuzz DIRECTORY TARGET TIME
fuzz() {
	status=0
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$3" "$1" >"$output" 2>&1 || status=$?
	cat "$output"
	return $status
}

for file in $(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $target"
		fuzz "$(dirname "$file")" "$target" "$1" && continue
		# The go command at times takes the end of its own time for a failure (golang.org/issue/75804). A real one has an input, or another message.
		grep -q '^    context deadline exceeded$' "$output" && ! grep -q 'Failing input' "$output" || exit 1
		echo "== again: the time was over, and nothing was found"
		fuzz "$(dirname "$file")" "$target" "$1"
	done
done
