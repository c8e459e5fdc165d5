#!/bin/sh
# Signs a request for Tidegate with openssl and sends it with curl.
#   X_SOURCE=test X_SECRET=demo-secret-of-test sh sign.sh [--headers] METHOD URL [FILE]
# FILE is the body. --headers prints the three headers instead of sending. X_TIME sets the time, for tests.
# openssl takes the secret as an argument: on a machine you share, others can see it in the process list.
set -eu

headers_only=
if [ "${1-}" = --headers ]; then headers_only=1; shift; fi
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  echo 'usage: X_SOURCE=… X_SECRET=… sh sign.sh [--headers] METHOD URL [FILE]' >&2
  exit 2
fi
method=$1 url=$2 body=${3-/dev/null}

# Path and query as they are sent: what follows scheme and host.
rest=${url#*://}
case $rest in
  */*) target=/${rest#*/} ;;
  *) target=/ ;;
esac

now=${X_TIME-$(date +%s)}
body_hash=$(openssl dgst -sha256 -r < "$body" | cut -d' ' -f1)
mac=$(printf '%s\n%s\n%s\n%s\n%s' "$X_SOURCE" "$now" "$method" "$target" "$body_hash" |
  openssl dgst -sha256 -hmac "$X_SECRET" -r | cut -d' ' -f1)

if [ -n "$headers_only" ]; then
  printf 'x-source: %s\nx-time: %s\nx-m: %s\n' "$X_SOURCE" "$now" "$mac"
  exit
fi
set -- --silent --show-error --include --path-as-is --request "$method" \
  -H "x-source: $X_SOURCE" -H "x-time: $now" -H "x-m: $mac"
if [ "$method" = HEAD ]; then set -- "$@" --head; fi
if [ "$body" != /dev/null ]; then set -- "$@" --data-binary "@$body"; fi
exec curl "$@" "$url"
