#!/bin/sh
# What the tests run beside Python packages, from Debian: a browser, Prometheus with promtool,
# curl for HTTP/2, openssl for a certificate, HAProxy and systemd-analyze for what is in deploy/.
# Does nothing where they are; needs root or sudo where they are not.
set -eu

missing=""
command -v chromium >/dev/null || missing="$missing chromium"
command -v promtool >/dev/null || missing="$missing prometheus"
command -v curl >/dev/null || missing="$missing curl"
command -v openssl >/dev/null || missing="$missing openssl"
# It is where an ordinary user's PATH may not look.
[ -x /usr/sbin/haproxy ] || command -v haproxy >/dev/null || missing="$missing haproxy"
command -v systemd-analyze >/dev/null || missing="$missing systemd"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "the tests need$missing on the PATH; install them with this system's package manager" >&2
    exit 1
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
echo "installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
