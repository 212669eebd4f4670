#!/bin/bash
# A campaign on Slurm, a task for each partition: sbatch --array=0-99%50 examples/campaign_slurm.sh /path/of/bg
#SBATCH --job-name=pxdbg
#SBATCH --cpus-per-task=1
#SBATCH --mem=1500M
#SBATCH --time=02:00:00
#SBATCH --requeue
pxdbg campaign part "$SLURM_ARRAY_TASK_ID" "$1"
code=$?
# 78: this machine does not give the digits of the plan, another one may. 75: another job makes the partition.
if [ "$code" = 78 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
if [ "$code" = 75 ]; then code=0; fi
exit "$code"
