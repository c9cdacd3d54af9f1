#!/usr/bin/env bash
# A comparison as a Slurm job array: one task a run, and a job that collects when all have ended.
#
#   docs/slurm-compare.sh [OPTIONS OF SBATCH] -- ARGUMENTS OF COMPARE
#   docs/slurm-compare.sh --gpus=1 --time=4:00:00 -- --config my.toml --seeds 3
#
# VITADAPT names the program (vitadapt). Everything is relative to the folder in which this is started, which all nodes
# have to see. Starting it again is harmless: finished training runs end at once, interrupted ones go on.
set -euo pipefail
program=${VITADAPT:-vitadapt}

options=()
while (($#)) && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
if (($# < 2)); then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
shift

mkdir -p slurm
list=slurm/compare-$(date +%Y%m%d-%H%M%S)-$$.txt
"$program" compare "$@" --list >"$list"
submit() { sbatch --parsable "${options[@]}" "$@"; }

# srun, so that the SIGTERM of a cancelled or expired task reaches the training, which saves its state.
task="exec srun --ntasks=1 sh -c \"exec \$(sed -n \"\${SLURM_ARRAY_TASK_ID}p\" $list)\""
array=$(submit --job-name=compare --output=slurm/run-%A_%a.log --array="1-$(wc -l <"$list")" --wrap "$task")
collect=$(printf '%q ' "$program" compare "$@" --collect)
last=$(submit --job-name=collect --output=slurm/collect-%j.log --dependency="afterany:$array" --wrap "exec $collect")

echo "$(wc -l <"$list") runs of $list are array $array, and job $last collects them:"
echo "    squeue --job $array,$last"
echo "    cat slurm/collect-$last.log"
