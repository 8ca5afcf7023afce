#!/usr/bin/env bash
#SBATCH --job-name=mue_check
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
# sbatch slurm_ray.sh [OPTIONS of mue_check suite]: a Ray cluster on several nodes. Only the first needs the study folder.
set -euo pipefail

export OMP_NUM_THREADS=1
# nobody else on the network may run code in the cluster
RAY_AUTH_TOKEN=$(head --bytes 32 /dev/urandom | sha256sum | cut --delimiter ' ' --fields 1)
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
port=${PORT:-6379}
study=${STUDY:-$PWD/mue_check_study}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head --lines 1)

srun --overlap --nodes 1 --ntasks 1 --nodelist "$head" ray start --head --port "$port" --block &
sleep 20
if ((SLURM_NNODES > 1)); then
  srun --overlap --nodes $((SLURM_NNODES - 1)) --ntasks $((SLURM_NNODES - 1)) --exclude "$head" \
    ray start --address "$head:$port" --block &
  sleep 20
fi
srun --overlap --nodes 1 --ntasks 1 --nodelist "$head" \
  mue_check suite --tier gpu --cluster "$head:$port" --study "$study" "$@"
