#!/bin/sh
# New secrets for docker-compose.yml, in ./secrets, which only you can enter. What is there already is left alone.
set -eu
cd "$(dirname "$0")/.."
umask 077
if [ -e secrets ]; then
    echo "secrets is there already: nothing done" >&2
    exit 1
fi
mkdir secrets
word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
password=$(word)
access=$(word)
secret=$(word)
printf '%s' "$password" > secrets/database_password
printf 'postgresql+psycopg://longweave:%s@database/longweave' "$password" > secrets/database_url
printf '%s' "$access" > secrets/s3_access_key
printf '%s' "$secret" > secrets/s3_secret_key
printf '%s' "$(word)" > secrets/ray_token
printf '{"identities": [{"name": "longweave", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]}]}\n' \
    "$access" "$secret" > secrets/s3_config
# The folder keeps others out; the services, which are other users, read the files by themselves.
chmod 444 secrets/*
