"""vitadapt and PyTorch side by side: the same backbone, images and settings, whole processes, in turn.

    cargo build --release
    pip install torch==2.15.0 timm==1.0.31 pillow==13.0.0 safetensors==0.8.0
    python benches/compare_training.py [--seeds 3] [--epochs 15] [--image-size 112]

Prints a table of accuracies (mean and standard deviation over the seeds) and of the ratios of medians: images a
second in the training loop, wall time of the process, peak memory. The machine should be otherwise idle; the two
programs take turns, seed by seed, so that a slow spell meets both.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SETTINGS = {
    # strategy: (lr, head_lr, layer_decay), as in pytorch_reference.py
    "frozen": (1e-2, 1e-2, 1.0),
    "partial": (3e-4, 1e-3, 1.0),
    "full": (3e-4, 1e-3, 0.75),
}


def ours(strategy: str, seed: int, arguments: argparse.Namespace, out: str) -> dict:
    lr, head_lr, layer_decay = SETTINGS[strategy]
    settings = {
        "run.name": f"{strategy}-{seed}", "run.out": out, "run.device": "cpu", "run.seed": seed,
        # Of its own, so that no run finds what another has computed.
        "cache.dir": f"{out}/cache-{strategy}-{seed}",
        "run.threads": arguments.threads, "data.root": REPOSITORY / "data" / "textile",
        "model.backbone": "builtin:vit-mini", "model.image_size": arguments.image_size, "strategy.kind": strategy,
        "train.lr": lr, "train.head_lr": head_lr,
        "train.layer_decay": layer_decay, "train.weight_decay": 0.05, "train.epochs": arguments.epochs,
        "train.batch_size": 16, "early_stop.patience": 0,
    }
    command = [REPOSITORY / "target" / "release" / "vitadapt", "finetune", "--json", "--quiet"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return timed(command)


def theirs(strategy: str, seed: int, arguments: argparse.Namespace) -> dict:
    command = [
        sys.executable, REPOSITORY / "benches" / "pytorch_reference.py", "--json", "--strategy", strategy,
        "--seed", seed, "--epochs", arguments.epochs, "--image-size", arguments.image_size,
        "--threads", arguments.threads,
    ]
    result = timed(command)
    return {**result["runs"][0], "wall": result["wall"], "peak_memory_bytes": result["peak_memory_bytes"]}


def timed(command: list) -> dict:
    started = time.perf_counter()
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), "wall": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--strategies", nargs="*", default=list(SETTINGS))
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}; {arguments.threads} threads, {arguments.image_size} px, "
          f"{arguments.epochs} epochs, {arguments.seeds} seeds")
    print("| strategy | | test accuracy, % | val accuracy, % | images/s | process, s | peak, MiB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as out:
        for strategy in arguments.strategies:
            pairs = [(ours(strategy, seed, arguments, out), theirs(strategy, seed, arguments))
                     for seed in range(42, 42 + arguments.seeds)]
            report(strategy, pairs)


def report(strategy: str, pairs: list[tuple[dict, dict]]) -> None:
    medians = []
    for name, results in zip(("vitadapt", "PyTorch"), zip(*pairs)):
        # None where frozen layers had run before: that is no speed of the model.
        median = {key: statistics.median(result[key] or math.nan for result in results)
                  for key in ("images_per_second", "wall", "peak_memory_bytes")}
        medians.append(median)
        accuracies = [spread([100 * result[key] for result in results]) for key in ("test_accuracy", "val_accuracy")]
        print(f"| {strategy} | {name} | {accuracies[0]} | {accuracies[1]} | {median['images_per_second']:.0f} "
              f"| {median['wall']:.1f} | {median['peak_memory_bytes'] / 2**20:.0f} |")
    us, them = medians
    print(f"| | ratio | | | {us['images_per_second'] / them['images_per_second']:.2f} faster "
          f"| {them['wall'] / us['wall']:.2f} faster | {us['peak_memory_bytes'] / them['peak_memory_bytes']:.2f} |",
          flush=True)


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
