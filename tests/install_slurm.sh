#!/bin/sh
# Install the Slurm that the tests in tests/slurm start and throw away, on Debian or Ubuntu; about 14 MB, and what compiles
# and checks beside it. Does nothing where it is already there. Without it those tests are skipped, and say so.
set -eu
if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v shellcheck >/dev/null; then
    exit 0
fi
packages="slurm-wlm munge libslurm-dev gcc libc6-dev shellcheck"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Slurm is missing, its tests will be skipped; as root: apt-get install $packages" >&2
    exit 0
fi
# shellcheck disable=SC2086    # several words
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >/dev/null; then
    echo "Slurm could not be installed, its tests will be skipped: apt-get install $packages" >&2
fi
