#!/usr/bin/env bash
# One process per node, with all its GPUs:  sbatch --nodes=4 experiments/clusters/slurm.sh FLAGS...
# FLAGS are those of jaxdog.main. The work directory must be on a file system of all nodes.
#SBATCH --job-name=jaxdog
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=10:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
# JAX finds the other processes through SLURM. TERM, two minutes before the end, makes a checkpoint of the last step;
# the requeued job resumes from it.
exec srun --kill-on-bad-exit=1 .venv/bin/python -m jaxdog.main "$@"
