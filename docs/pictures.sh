#!/usr/bin/env bash
# Makes what README and the pages show of the textile images again: the pictures in docs/, and on stdout the tables, to be
# put into README's "First run", features.md, results.md and inspection.md.
#
#     docs/pictures.sh [VITADAPT]          a built program; without one, a release build
#
# Not made here: tradeoff.png (docs/compare.md has its command; plots/compare.png), quickstart-mistakes.jpg (a screenshot
# of report.html), augment-more.png.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
if [ $# -gt 0 ]; then program=$1; else
    cargo build --release --quiet
    program=target/release/vitadapt
fi

vitadapt() {
    printf '\n$ vitadapt %s\n' "$*" >&2
    "$program" "$@" --quiet
}
textile() { vitadapt "$1" --config "configs/$2.toml" --set run.out="$runs/$1"; }

textile finetune quickstart
vitadapt eval --run "$runs/finetune/quickstart" --corrupt
textile probe quickstart
vitadapt tsne --run "$runs/probe/quickstart"
textile finetune textile-inspection
vitadapt check --config configs/quickstart.toml --set augment.preset=industrial --augment-sheet docs/augment-sheet.png \
    --copies 4 --per-class 1 >/dev/null

cp "$runs/finetune/quickstart/plots/confusion-test.png" docs/quickstart-confusion.png
cp "$runs/finetune/quickstart/plots/robustness-test.png" docs/quickstart-robustness.png
cp "$runs/probe/quickstart/plots/selection.png" docs/quickstart-selection.png
cp "$runs/probe/quickstart/plots/tsne.png" docs/quickstart-tsne.png
cp "$runs/finetune/textile-inspection/plots/reliability-test.png" docs/reliability.png
