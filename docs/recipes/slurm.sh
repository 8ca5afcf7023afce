#!/usr/bin/env bash
#SBATCH --job-name=mue_check
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
# sbatch slurm.sh [OPTIONS of mue_check suite]: all GPUs of one node. A job that was preempted goes on where it stopped.
set -euo pipefail

export OMP_NUM_THREADS=1
study=${STUDY:-$PWD/mue_check_study}
mue_check suite --tier gpu --gpus "${SLURM_GPUS_ON_NODE:-8}" --study "$study" "$@"
