"""vitadapt and PyTorch side by side on one GPU: the same models, batches and kinds of steps, whole processes, in turn.

    cargo build --release --features cuda
    pip install torch==2.15.0 timm==1.0.31 pillow==13.0.0 safetensors==0.8.0
    python benches/compare_gpu.py [--models vit_small_patch16_224] [--strategies full] [--vitadapt PATH]

One call, one Markdown table. Models have random weights and images are noise: what is measured is agreement (features of
`vitadapt extract` in f32 beside timm's, largest difference), speed (images a second at 224 px in bf16: in training, and
forward alone) and peak memory of the GPU (nvidia-smi, less what was taken before; this counts the CUDA context and what
either program keeps for itself). vitadapt runs a second time with VITADAPT_KERNELS=composed, without kernels of its own.

PyTorch runs as fast as it is known to: torch.compile, autocast in bf16, fused AdamW, no read of the loss; its batches lie
decoded in page-locked memory. vitadapt decodes, mirrors and normalises every image of every batch, and images are mirrored
so that frozen blocks run in every step here too, as they do there. The first epoch (and PyTorch's first steps, in which
it compiles) does not count.

`--device cpu --image-size 64 --batch-size 4 --images 16 --eager` tries the whole script without a GPU.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_reference import Normalizer, parameter_groups
from timm.models import save_for_hf

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = ["vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"]
STRATEGIES = ["forward", "frozen", "partial", "lora", "full"]
CLASSES = ["a", "b"]
LR, WEIGHT_DECAY, CLIP_GRAD, LAST_BLOCKS, RANK = 1e-5, 0.05, 1.0, 3, 8
WARMUP_STEPS = 5
# Seconds that one program may take, so that one that hangs does not keep the others from their turn.
TIMEOUT = 600


class GpuMemory:
    """The most memory in use on the GPU while it is entered, beyond what was before; none where nvidia-smi is not."""

    def __enter__(self) -> "GpuMemory":
        self.before = self.peak = self.used()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.poll, daemon=True)
        if self.before is not None:
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        if self.before is not None:
            self.thread.join()

    def poll(self) -> None:
        while not self.ended.wait(0.05):
            self.peak = max(self.peak, self.used() or 0)

    @staticmethod
    def used() -> int | None:
        """MiB in use on the first GPU."""
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        try:
            return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        except (OSError, ValueError, subprocess.CalledProcessError):
            return None

    @property
    def mebibytes(self) -> int | None:
        return None if self.before is None else self.peak - self.before


def make_images(root: Path, count: int, size: int) -> None:
    """Noise of the input's size in class folders, uncompressed, so that decoding is no bottleneck."""
    noise = numpy.random.default_rng(0)
    for split, images in (("train", count), ("val", 2 * len(CLASSES))):
        for index in range(images):
            folder = root / split / CLASSES[index % len(CLASSES)]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 256, (size, size, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(folder / f"{index:05}.bmp")


def make_model(folder: Path, name: str) -> None:
    """A folder as timm saves it, with random weights."""
    torch.manual_seed(0)
    save_for_hf(timm.create_model(name, num_classes=0), folder, safe_serialization=True)


def ours(command: str, settings: dict, flags: list, arguments: argparse.Namespace, kernels: str | None) -> dict:
    """The JSON that vitadapt prints."""
    line = [arguments.vitadapt, command, "--json", "--quiet", *flags]
    for key, value in settings.items():
        line += ["--set", f"{key}={value}"]
    environment = {**os.environ, **({"VITADAPT_KERNELS": kernels} if kernels else {})}
    done = subprocess.run([str(part) for part in line], check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, env=environment)
    return json.loads(done.stdout)


def common_settings(work: Path, name: str, arguments: argparse.Namespace) -> dict:
    return {
        "run.device": "cuda:0" if arguments.device == "cuda" else "cpu", "run.out": work / "runs",
        "data.root": work / "images", "model.backbone": work / name, "model.image_size": arguments.image_size,
        "preprocess.resize": "squash", "cache.dir": work / "cache",
    }


@torch.inference_mode()
def difference(work: Path, name: str, arguments: argparse.Namespace, kernels: str | None) -> float:
    """Largest difference between features of the training images, both in f32, relative to the largest feature."""
    out = work / f"{name}-{kernels}.npy"
    # A cache of its own, so that features are computed and not found.
    settings = {**common_settings(work, name, arguments), "cache.dir": work / f"cache-{name}-{kernels}"}
    ours("extract", settings, ["--out", out, "--split", "train", "--features", "cls"], arguments, kernels)
    features = torch.from_numpy(numpy.load(out))
    torch.backends.cudnn.allow_tf32 = False
    model = timm.create_model(f"local-dir:{work / name}", pretrained=True, num_classes=0, img_size=arguments.image_size)
    model = model.eval().to(arguments.device)
    normalize = Normalizer(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    paths = [line.split(",")[0] for line in out.with_suffix(".csv").read_text().splitlines()[1:]]
    theirs = []
    for first in range(0, len(paths), arguments.batch_size):
        pixels = [numpy.asarray(Image.open(work / "images" / path)) for path in paths[first:first + arguments.batch_size]]
        images = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2)
        theirs.append(model(normalize(images).to(arguments.device)).cpu())
    theirs = torch.cat(theirs)
    return ((features - theirs).abs().max() / theirs.abs().max()).item()


def our_training(work: Path, name: str, strategy: str, arguments: argparse.Namespace, kernels: str | None) -> dict:
    """Speed of the later epochs, or of features alone, and memory of the GPU."""
    common = common_settings(work, name, arguments) | {"train.batch_size": arguments.batch_size}
    if strategy == "forward":
        out = work / f"forward-{name}-{kernels}.npy"
        # A cache of its own, so that features are computed and not found.
        settings = common | {"run.precision": "bf16", "cache.dir": work / f"forward-{name}-{kernels}"}
        with GpuMemory() as memory:
            computed = ours("extract", settings, ["--out", out, "--split", "train"], arguments, kernels)["cache"]
        return {"images_per_second": computed["misses"] / computed["seconds"], "memory": memory.mebibytes}
    settings = common | {
        "run.name": f"{name}-{strategy}-{kernels}", "run.precision": "bf16", "strategy.kind": strategy,
        "train.lr": LR, "train.head_lr": LR, "train.weight_decay": WEIGHT_DECAY, "train.clip_grad": CLIP_GRAD,
        "train.epochs": arguments.epochs, "train.accumulate": 1,
        "augment.hflip": 0.5, "early_stop.patience": 0, "report.html": "false",
    }
    if strategy == "partial":
        settings["strategy.blocks"] = LAST_BLOCKS
    with GpuMemory() as memory:
        run = ours("finetune", settings, [], arguments, kernels)["run"]
    epochs = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return {
        "images_per_second": statistics.median(epoch["images_per_second"] or math.nan for epoch in epochs[1:]),
        "memory": memory.mebibytes,
    }


def their_training(work: Path, name: str, strategy: str, arguments: argparse.Namespace) -> dict:
    """The same of a process of this script's own, so that compiled code and memory are not shared."""
    line = [sys.executable, __file__, "--their-steps", work / name, "--models", name, "--strategies", strategy]
    for flag in ("device", "image_size", "batch_size", "images", "epochs"):
        line += [f"--{flag.replace('_', '-')}", getattr(arguments, flag)]
    line += ["--eager"] if arguments.eager else []
    with GpuMemory() as memory:
        done = subprocess.run([str(part) for part in line], check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT)
    return {**json.loads(done.stdout), "memory": memory.mebibytes}


class Lora(torch.nn.Module):
    """A linear layer with a product of two small matrices beside it (Hu et al. 2021)."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.down = torch.nn.Linear(linear.in_features, RANK, bias=False)
        self.up = torch.nn.Linear(RANK, linear.out_features, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.up(self.down(x))


def groups_of(model: torch.nn.Module, strategy: str) -> list[dict]:
    """Parameters to train, with their learning rates; freezes the rest. Adapters are where vitadapt has them by default."""
    recipe = argparse.Namespace(
        strategy="frozen" if strategy == "lora" else strategy, blocks=LAST_BLOCKS, lr=LR, head_lr=LR, layer_decay=1.0,
        weight_decay=WEIGHT_DECAY)
    groups = [{**group, "lr": group["peak"]} for group in parameter_groups(model, recipe)]
    if strategy == "lora":
        adapters = []
        for block in model.blocks:
            block.attn.qkv = Lora(block.attn.qkv).to(block.attn.qkv.weight.device)
            adapters += [*block.attn.qkv.down.parameters(), *block.attn.qkv.up.parameters()]
        groups.append({"params": adapters, "lr": LR, "weight_decay": WEIGHT_DECAY})
    return groups


def their_steps(arguments: argparse.Namespace) -> dict:
    """Trains on batches that lie ready, for as many steps as vitadapt's later epochs have, or runs them forward."""
    device, size, gpu = arguments.device, arguments.image_size, arguments.device == "cuda"
    model = timm.create_model(
        f"local-dir:{arguments.their_steps}", pretrained=True, num_classes=len(CLASSES), img_size=size)
    strategy = arguments.strategies[0]
    forward = strategy == "forward"
    model = model.to(device).train(not forward)
    groups = groups_of(model, "frozen" if forward else strategy)
    trainable = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, fused=gpu)
    compiled = model if arguments.eager else torch.compile(model)

    def lock(batch: torch.Tensor) -> torch.Tensor:
        return batch.pin_memory() if gpu else batch

    batches = [lock(torch.randn(arguments.batch_size, 3, size, size)) for _ in range(2)]
    labels = torch.arange(arguments.batch_size, device=device) % len(CLASSES)

    def step(number: int) -> None:
        if forward:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                compiled(batches[number % len(batches)].to(device, non_blocking=True)).float().cpu()
            return
        images = batches[number % len(batches)].to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16):
            logits = compiled(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, CLIP_GRAD)
        optimizer.step()

    def wait() -> None:
        if gpu:
            torch.cuda.synchronize()

    for number in range(WARMUP_STEPS):
        step(number)
    wait()
    steps = max(1, arguments.images // arguments.batch_size * (arguments.epochs - 1))
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    wait()
    return {"images_per_second": steps * arguments.batch_size / (time.perf_counter() - began)}


def report(work: Path, arguments: argparse.Namespace) -> None:
    print("| model | strategy | | images/s | beside PyTorch | peak GPU memory, MiB | largest difference in f32 |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models:
        make_model(work / name, name)
        differences = {kernels: difference(work, name, arguments, kernels) for kernels in (None, "composed")}
        for strategy in arguments.strategies:
            them = their_training(work, name, strategy, arguments)
            row(name, strategy, "PyTorch", them, them, "")
            for kernels in (None, "composed"):
                us = our_training(work, name, strategy, arguments, kernels)
                label = "vitadapt" if kernels is None else f"vitadapt, {kernels}"
                row(name, strategy, label, us, them, f"{differences[kernels]:.1e}")


def row(name: str, strategy: str, label: str, result: dict, reference: dict, off: str) -> None:
    memory = "–" if result["memory"] is None else result["memory"]
    speed = result["images_per_second"]
    print(f"| {name} | {strategy} | {label} | {speed:.0f} | {speed / reference['images_per_second']:.2f} | {memory} "
          f"| {off} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=MODELS, help="timm's names")
    parser.add_argument("--strategies", nargs="*", default=STRATEGIES, choices=STRATEGIES)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1024, help="training images, an epoch")
    parser.add_argument("--epochs", type=int, default=5, help="of which the first does not count")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--eager", action="store_true", help="PyTorch without torch.compile")
    parser.add_argument("--vitadapt", type=Path, default=REPOSITORY / "target" / "release" / "vitadapt")
    parser.add_argument("--their-steps", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs must be at least 2")
    if arguments.their_steps:
        print(json.dumps(their_steps(arguments)))
        return
    chip = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    compiled = "eager" if arguments.eager else "compiled"
    print(f"{chip}; {arguments.image_size} px, batches of {arguments.batch_size}, bf16; PyTorch {torch.__version__} "
          f"({compiled}), timm {timm.__version__}\n", flush=True)
    with tempfile.TemporaryDirectory() as work:
        make_images(Path(work) / "images", arguments.images, arguments.image_size)
        report(Path(work), arguments)


if __name__ == "__main__":
    main()
