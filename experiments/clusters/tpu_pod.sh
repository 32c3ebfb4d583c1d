#!/usr/bin/env bash
# Runs jaxdog.main on every host of an existing TPU slice, from a clone on each:
#   NAME=my-slice ZONE=us-central2-b experiments/clusters/tpu_pod.sh FLAGS...
# FLAGS are those of jaxdog.main; --workdir must be on a file system of all hosts, for example a Filestore
# share.
set -euo pipefail
: "${NAME:?name of the slice}" "${ZONE:?its zone}"
FOLDER="${FOLDER:-jaxdog}" # of the clone, below the home folder
printf -v flags '%q ' "$@"
exec gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command \
  "cd $FOLDER && .venv/bin/python -m jaxdog.main --coordinator=auto $flags"
