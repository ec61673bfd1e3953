#!/usr/bin/env bash
# Installs what `make test-cluster` needs, where that can be done: Debian or Ubuntu, as root.
# Elsewhere it names what is missing, and the tests that need it are skipped with the reason.
set -euo pipefail
declare -A package=([slurmctld]=slurm-wlm [munged]=munge [shellcheck]=shellcheck [sshd]=openssh-server
                    [ssh]=openssh-client [ip]=iproute2 [nft]=nftables)
wanted=()
for tool in "${!package[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || wanted+=("${package[$tool]}")
done
[ ${#wanted[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "cluster tools: installing ${wanted[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null && exit 0
fi
echo "cluster tools: NOT INSTALLED: ${wanted[*]}; tests that need them are skipped" >&2
