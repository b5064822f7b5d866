#!/bin/sh
# Installs what the demonstration needs besides Go, gcc and make; with the argument "tests", also what the tests do, and with "clients", what those
# with other clients do. Does nothing when all is there; on a system without apt it says what to install and fails.
set -eu

softhsm_module() {
	for f in "${SOFTHSM2_MODULE:-}" /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so \
		/usr/lib64/softhsm/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so; do
		[ -n "$f" ] && [ -e "$f" ] && return 0
	done
	return 1
}

nss_module() {
	for f in "${NSS_SOFTOKN_MODULE:-}" /usr/lib/*-linux-*/libsoftokn3.so /usr/lib/*-linux-*/nss/libsoftokn3.so /usr/lib64/libsoftokn3.so /usr/lib/libsoftokn3.so; do
		[ -n "$f" ] && [ -e "$f" ] && return 0
	done
	return 1
}

missing=
# The module may be there without the tool, which is of another package.
softhsm_module && command -v softhsm2-util >/dev/null 2>&1 || missing="$missing softhsm2"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v bash >/dev/null 2>&1 || missing="$missing bash"
echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
if [ "${1:-}" = tests ]; then
	# For file systems that are full or fail.
	[ -x /sbin/mkfs.ext4 ] || missing="$missing e2fsprogs"
	[ -x /sbin/losetup ] || missing="$missing mount"
	# Two other tokens: one that works, and one that is to be refused.
	nss_module || missing="$missing libnss3"
	command -v certutil >/dev/null 2>&1 || missing="$missing libnss3-tools"
	[ -x /usr/sbin/pkcsslotd ] && [ -x /usr/sbin/pkcsconf ] || missing="$missing opencryptoki"
fi
if [ "${1:-}" = clients ]; then
	python3=/usr/bin/python3
	[ -x /usr/bin/aws ] || missing="$missing awscli"
	"$python3" -c 'import boto3' >/dev/null 2>&1 || missing="$missing python3-boto3"
	command -v npm >/dev/null 2>&1 || missing="$missing nodejs npm"
fi

if ! command -v go >/dev/null 2>&1; then
	echo "deps: Go is missing: install 1.26 or newer from https://go.dev/dl/" >&2
	exit 1
fi
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "deps: missing, by their Debian names:$missing" >&2
	echo "deps: on Fedora:  dnf install softhsm openssl gcc; for the tests nss-softokn nss-tools opencryptoki too" >&2
	echo "deps: if SoftHSM is somewhere else, set SOFTHSM2_MODULE to the path of libsofthsm2.so" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "deps: missing:$missing; neither root nor sudo to install them. As root:  apt-get install$missing" >&2
		exit 1
	fi
	sudo=sudo
fi
echo "deps: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# $missing is a list of words.
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >&2 ||
	{ $sudo apt-get update -qq >&2 && $sudo apt-get install -y -qq --no-install-recommends $missing >&2; }
