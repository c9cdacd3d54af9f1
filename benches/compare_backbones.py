"""ViT-Ti, S and B at 224 px beside PyTorch: forward, full fine-tuning, 10 epochs of frozen and of partial, peak memory.

    cargo build --release
    pip install torch==2.15.0 timm==1.0.31 pillow==13.0.0 safetensors==0.8.0
    python benches/compare_backbones.py [--models vit_tiny_patch16_224 ...] [--turns 1]
    python benches/compare_backbones.py --models vit_small_patch16_dinov3 vit_base_patch16_dinov3
    python benches/compare_backbones.py --curves
    python benches/compare_backbones.py --before PATH/OF/AN/EARLIER/vitadapt

Any ViT of timm that vitadapt reads can be named, at 224 px whatever its own size. Random weights, written by timm; textile images (a part of them for training, so that ViT-B takes minutes); no cache from
before. The two programs take turns; medians. Forward is `vitadapt extract` as a whole process, with starting, decoding
and writing, against PyTorch's bare loop over tensors that are there already. The images per second of full fine-tuning
are those of the training loop, in which vitadapt decodes and PyTorch does not. Frozen and partial (the last three
blocks) are whole processes. Peak memory is the largest resident set.

`--curves` trains all blocks on all training images at once (one step an epoch, so that no order of images comes in) from
the same weights and the same head, and prints the training loss of each epoch in both programs.

`--before` puts an earlier binary in PyTorch's place: whole processes on both sides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_training import REPOSITORY, SETTINGS

DATA = REPOSITORY / "data" / "textile"
MINI = REPOSITORY / "assets" / "vit-mini"
MODELS = ["vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"]
IMAGE_SIZE = 224
BATCH = 16
MIB = 2**20
BINARY = REPOSITORY / "target" / "release" / "vitadapt"


def timed(command: list) -> dict:
    """Runs a process to its end: the JSON it prints, its wall time and its peak memory."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as answer:
        process = subprocess.Popen([str(part) for part in command], stdout=answer, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"exit code {process.returncode}: {' '.join(map(str, command))}")
        wall = time.perf_counter() - started
        answer.seek(0)
        return {**json.loads(answer.read()), "wall": wall, "peak": usage.ru_maxrss * 1024}


def folder_of(model: str, place: Path) -> Path:
    """A folder of timm with random weights, written by another process: a child's peak begins at its parent's."""
    folder = place / model
    script = ("import sys, timm, torch; torch.manual_seed(0); timm.models.save_for_hf(timm.create_model(sys.argv[1], "
              "num_classes=0), sys.argv[2], safe_serialization=True)")
    subprocess.run([sys.executable, "-c", script, model, folder], check=True)
    return folder


def part_of_data(place: Path, per_class: dict[str, int]) -> Path:
    """The first images of every class of every split."""
    for split, count in per_class.items():
        for kind in sorted(path for path in (DATA / split).iterdir() if path.is_dir()):
            target = place / "images" / split / kind.name
            target.mkdir(parents=True)
            for image in sorted(kind.glob("*.jpg"))[:count]:
                (target / image.name).symlink_to(image)
    return place / "images"


def ours(command: str, settings: dict, *flags, binary: Path = BINARY) -> dict:
    with tempfile.TemporaryDirectory() as out:
        settings = {"run.out": out, "run.name": "run", "cache.dir": f"{out}/cache", "run.device": "cpu", **settings}
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        flags = [str(flag).replace("OUT", out) for flag in flags]
        result = timed([binary, command, "--json", "--quiet", *pairs, *flags])
        log = Path(out, "run", "metrics.jsonl")
        return {**result, "log": [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []}


def our_settings(strategy: str, model: Path, data: Path, arguments: argparse.Namespace) -> dict:
    lr, head_lr, layer_decay = SETTINGS[strategy]
    return {
        "run.threads": arguments.threads, "data.root": data, "model.backbone": model, "model.image_size": IMAGE_SIZE,
        "strategy.kind": strategy, "train.lr": lr, "train.head_lr": head_lr, "train.layer_decay": layer_decay,
        "train.weight_decay": 0.05, "train.batch_size": BATCH, "early_stop.patience": 0,
    }


def theirs(*flags) -> dict:
    result = timed([sys.executable, REPOSITORY / "benches" / "pytorch_reference.py", "--json", *flags])
    return {**result, **result.get("runs", [{}])[0]}


def forward(model: Path, arguments: argparse.Namespace) -> tuple[dict, dict]:
    settings = {"run.threads": arguments.threads, "data.root": DATA, "model.backbone": model,
                "model.image_size": IMAGE_SIZE}

    def extracted(binary: Path) -> dict:
        result = ours("extract", settings, "--out", "OUT/features.npy", binary=binary)
        return {**result, "rate": len(list(DATA.glob("*/*/*.jpg"))) / result["wall"]}

    us = extracted(BINARY)
    if arguments.before:
        return us, extracted(arguments.before)
    them = theirs("--forward", model.name, "--forward-size", IMAGE_SIZE, "--threads", arguments.threads)
    them["rate"] = them["images_per_second"][model.name]
    return us, them


def training(strategy: str, epochs: int, model: Path, data: Path, arguments: argparse.Namespace) -> tuple[dict, dict]:
    settings = {**our_settings(strategy, model, data, arguments), "train.epochs": epochs}
    us = ours("finetune", settings)
    if arguments.before:
        them = ours("finetune", settings, binary=arguments.before)
    else:
        them = theirs("--strategy", strategy, "--epochs", epochs, "--image-size", IMAGE_SIZE, "--backbone", model,
                      "--data", data, "--batch-size", BATCH, "--threads", arguments.threads)
    for result in (us, them):
        result["rate"] = result["images_per_second"]
    return us, them


def row(model: str, work: str, key: str, unit: str, turns: list[tuple[dict, dict]]) -> None:
    us, them = (statistics.median(result[key] for result in results) for results in zip(*turns))
    ratio = us / them if key == "rate" else them / us
    peaks = [max(result["peak"] for result in results) / MIB for results in zip(*turns)]
    print(f"| {model} | {work} | {us:.1f} {unit} | {them:.1f} {unit} | {ratio:.2f} x "
          f"| {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.2f} |", flush=True)


def speeds(arguments: argparse.Namespace) -> None:
    other = "before" if arguments.before else "PyTorch"
    print(f"| backbone | work | vitadapt | {other} | faster | peak, MiB | {other}, MiB | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        data = part_of_data(place, {"train": 32, "val": 8, "test": 8})
        for name in arguments.models:
            model = folder_of(name, place)
            turns = range(arguments.turns)
            row(name, "forward", "rate", "images/s", [forward(model, arguments) for _ in turns])
            for strategy, epochs, key, unit in (("full", 2, "rate", "images/s"), ("frozen", 10, "wall", "s"),
                                                ("partial", 10, "wall", "s")):
                results = [training(strategy, epochs, model, data, arguments) for _ in turns]
                row(name, strategy if key == "rate" else f"{strategy}, 10 epochs", key, unit, results)


def curves(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        settings = our_settings("full", MINI, DATA, arguments)
        settings |= {"model.image_size": 112, "train.batch_size": 210, "train.epochs": 10}
        # One step that moves nothing leaves the head as it starts.
        kept = Path(place, "start")
        still = {"run.out": place, "run.name": "start", "train.lr": 1e-30, "train.head_lr": 1e-30, "train.epochs": 1}
        ours("finetune", {**settings, **still})
        us = [record["train_loss"] for record in ours("finetune", settings)["log"]]
        head = next((kept / "checkpoints" / "last").glob("*model*.safetensors"))
        them = theirs("--strategy", "full", "--epochs", 10, "--image-size", 112, "--batch-size", 210, "--threads",
                      arguments.threads, "--head", head)["losses"]
        print("| epoch | vitadapt | PyTorch | difference |\n|---|---|---|---|")
        for epoch, (a, b) in enumerate(zip(us, them, strict=True), 1):
            print(f"| {epoch} | {a:.6f} | {b:.6f} | {abs(a - b):.1e} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--before", type=Path)
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}; {arguments.threads} threads, batch {BATCH}, medians of "
          f"{arguments.turns}\n")
    curves(arguments) if arguments.curves else speeds(arguments)


if __name__ == "__main__":
    main()
