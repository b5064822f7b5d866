#!/bin/sh
# opencryptoki.sh DIR COMMAND ...: runs COMMAND where openCryptoki has one soft token, labelled "strongroom", with the PIN 12345678, and its daemon
# runs. openCryptoki knows its files by fixed names, so that this has to run in name spaces of its own, where others can be mounted over them; with
# these the daemon ends, and nothing is left. How: see OpenCryptoki in opencryptoki.go. DIR is an empty directory.
set -eu
dir=$1
shift
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/etc" "$dir/lib" "$dir/lib/swtok" "$dir/lib/swtok/TOK_OBJ"
cat >"$dir/etc/opencryptoki.conf" <<'CONF'
version opencryptoki-3.8
slot 3
{
stdll = libpkcs11_sw.so
}
CONF
# In a name space of users, only one group is there.
sed 's/^pkcs11:[^:]*:[0-9]*:.*/pkcs11:x:0:/' /etc/group >"$dir/group"
mount --bind "$dir/group" /etc/group
mount --bind "$dir/etc" /etc/opencryptoki
mount --bind "$dir/lib" /var/lib/opencryptoki
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock/opencryptoki/swtok
chmod -R 770 /run/lock/opencryptoki "$dir/lib"
PATH=$PATH:/usr/sbin:/sbin
pkcsslotd
n=0
until pkcsconf -t -c 3 >/dev/null 2>&1; do
	n=$((n + 1))
	[ $n -lt 100 ] || { echo "pkcsslotd does not answer" >&2; exit 1; }
	sleep 0.1
done
# The first PIN of the security officer is openCryptoki's.
printf '87654321\nstrongroom\n' | pkcsconf -I -c 3 >/dev/null
printf '87654321\n76543210\n76543210\n' | pkcsconf -P -c 3 >/dev/null
printf '76543210\n12345678\n12345678\n' | pkcsconf -u -c 3 >/dev/null
"$@"
