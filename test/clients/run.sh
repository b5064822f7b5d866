#!/bin/sh
# Starts `strongroom dev` and lets stock clients in other languages use it: the AWS CLI, Python's boto3, JavaScript's SDK. Prints a line for each
# check, and at the end how many passed and failed. test/deps.sh clients installs what this needs.
#
#	make clients
#	sh test/clients/run.sh [cli|python|javascript …]
set -eu
cd "$(dirname "$0")"
program=$(realpath "${STRONGROOM:-../../strongroom}")
[ -x "$program" ] || { echo "run.sh: $program is not there: make build" >&2; exit 1; }
[ $# -gt 0 ] || set -- cli python javascript

work=$(mktemp -d)
server=
stop() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

"$program" dev --dir "$work/rig" 2>"$work/log" >/dev/null &
server=$!
while ! [ -f "$work/rig/env" ]; do
	kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
	sleep 0.05
done
. "$work/rig/env"
# Nothing that this machine is set up for may reach the clients.
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_PAGER= AWS_EC2_METADATA_DISABLED=true WORK="$work" \
	STRONGROOM="$program" STRONGROOM_DIR="$work/rig"
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL

passed=0 failed=0
for client; do
	case $client in
	cli) command="sh cli.sh" ;;
	python) command="${PYTHON:-/usr/bin/python3} python.py" ;;
	javascript)
		[ -d node_modules/@aws-sdk/client-kms ] || npm ci --silent --no-audit --no-fund
		command="node --no-warnings javascript.mjs"
		;;
	*) echo "run.sh: there is no client $client" >&2; exit 2 ;;
	esac
	status=0
	# A client says "ok …" or "FAILED …" of each check; what else it says is a mistake of its own.
	$command >"$work/$client" 2>&1 || status=$?
	sed "s/^/$client: /" "$work/$client"
	passed=$((passed + $(grep -c '^ok ' "$work/$client" || true)))
	failed=$((failed + $(grep -c '^FAILED ' "$work/$client" || true)))
	if ! grep -q '^done$' "$work/$client"; then
		echo "$client: FAILED to come to its end, with exit code $status"
		failed=$((failed + 1))
	fi
done

kill "$server"
status=0
wait "$server" || status=$?
server=
if [ "$status" != 0 ] || grep -Eq 'panic|level=ERROR' "$work/log"; then
	echo "FAILED the server ended with exit code $status and this log:"
	cat "$work/log"
	failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
