"""The reference in PyTorch and timm: trains vit-mini on the textile images, or measures forward speed.

    pip install torch==2.15.0 timm==1.0.31 pillow==13.0.0 safetensors==0.8.0
    python benches/pytorch_reference.py --strategy frozen|partial|full [--seeds 3] [--json]
    python benches/pytorch_reference.py --forward [vit_tiny_patch16_224 ...] [--json]

What a careful user would write by hand, and fast on purpose: every image is decoded and resized once and kept in
memory, flips and normalisation work on whole batches, frozen parameters keep no graph. PyTorch runs eagerly in f32.

Training: the whole image squashed to the input size (Pillow, bicubic), the backbone's own mean and std; AdamW
(0.9, 0.999, eps 1e-8) without decay on 1-d parameters, class token and positions; linear warm-up, then cosine, both
per step; gradients clipped; the learning rate of layer k of depth + 1 scaled by layer_decay^(depth + 1 - k), where
the embeddings are layer 0, block i is layer i + 1, and the final norm and the head are the last. The best epoch is
the first with the highest validation accuracy; the test images are scored once, with its weights.

Expected with the recipes below, mean and standard deviation over seeds 42, 43 and 44 (validation is the best of 15
epochs on 60 images, so it flatters; the 90 test images were scored once a run):

    strategy   112 px: validation, test        224 px: validation, test
    frozen     66.1 +- 1.0 %   65.6 +- 1.1 %   70.6 +- 1.0 %   71.1 +- 1.1 %
    partial    68.3 +- 2.9 %   65.2 +- 1.7 %   74.4 +- 1.0 %   65.2 +- 3.4 %
    full       68.3 +- 1.7 %   64.8 +- 4.5 %   73.3 +- 3.3 %   64.1 +- 1.3 %

The differences are within noise: two thirds is what telling `global` from the rest gives. The defect of `local` covers
about 15 of 250 pixels; flips, learning rates to 1e-3 and inputs to 256 px did not lift the scores either.

Speed is given for the training loop (training batches only), for the run (with validation) and for the whole
process (imports, decoding and loading included).
"""

import time

STARTED = time.perf_counter()  # before the imports below, which the whole process has to pay for

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
EVAL_BATCH = 64
FORWARD_MODELS = ["vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a strategy; each has a flag of its name."""

    lr: float
    head_lr: float
    epochs: int = 15
    batch_size: int = 16
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup: float = 0.1


RECIPES = {
    "frozen": Recipe(lr=0.0, head_lr=1e-2),
    "partial": Recipe(lr=3e-4, head_lr=1e-3),
    "full": Recipe(lr=3e-4, head_lr=1e-3, layer_decay=0.75),
}


@dataclass(frozen=True)
class Split:
    """Decoded images (N, 3, S, S) in u8 and their class indices (N,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Result:
    """One seed."""

    seed: int
    best_epoch: int
    train_accuracy: float
    val_accuracy: float
    test_accuracy: float
    train_seconds: float
    seconds: float
    images_per_second: float
    losses: list[float]


def load_split(root: Path, classes: list[str], size: int, workers: int) -> Split:
    """Decodes and squashes every image of a folder of class folders."""
    files = [(path, index) for index, name in enumerate(classes) for path in sorted((root / name).glob("*.jpg"))]

    def decode(path: Path) -> numpy.ndarray:
        with Image.open(path) as image:
            return numpy.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(workers) as pool:
        pixels = numpy.stack(list(pool.map(decode, [path for path, _ in files])))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor([index for _, index in files]))


class Normalizer:
    """u8 pixels to the backbone's statistics."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.scale = 1 / (255 * torch.tensor(std).view(1, 3, 1, 1))
        self.shift = -(torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scale)


def flip(images: Tensor, dim: int, probability: float) -> Tensor:
    """Mirrors each image along `dim` with the given probability."""
    chosen = torch.rand(len(images), 1, 1, 1) < probability
    return torch.where(chosen, images.flip(dim), images)


def build_model(folder: Path, size: int, classes: int, head: Path | None = None) -> nn.Module:
    """The backbone at the wanted size, with a fresh head or one from a safetensors file."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=classes, img_size=size)
    nn.init.trunc_normal_(model.head.weight, std=0.02)
    nn.init.zeros_(model.head.bias)
    if head is not None:
        saved = load_file(head)
        model.head.load_state_dict({name: saved[f"head.{name}"] for name in ("weight", "bias")})
    return model


def layer_of(name: str, depth: int) -> int:
    """The layer of a parameter for layer decay: timm's convention."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1 if name.startswith(("norm.", "fc_norm.", "head.")) else 0


def is_trainable(name: str, strategy: str, depth: int, blocks: int) -> bool:
    """Whether a strategy trains a parameter."""
    if name.startswith("head."):
        return True
    first = {"frozen": depth + 2, "partial": depth - blocks + 1, "full": 0}[strategy]
    return layer_of(name, depth) >= first


def parameter_groups(model: nn.Module, arguments: argparse.Namespace) -> list[dict]:
    """One group a trainable parameter, with its peak learning rate and decay; freezes the rest."""
    depth = len(model.blocks)
    groups = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trainable(name, arguments.strategy, depth, arguments.blocks))
        if not parameter.requires_grad:
            continue
        base = arguments.head_lr if name.startswith("head.") else arguments.lr
        peak = base * arguments.layer_decay ** (depth + 1 - layer_of(name, depth))
        decayed = parameter.ndim > 1 and name not in ("cls_token", "pos_embed", "reg_token")
        decay = arguments.weight_decay if decayed else 0.0
        groups.append({"params": [parameter], "peak": peak, "weight_decay": decay})
    return merged(groups)


def merged(groups: list[dict]) -> list[dict]:
    """Groups of equal settings as one, which is faster in AdamW."""
    by_settings: dict[tuple, dict] = {}
    for group in groups:
        key = (group["peak"], group["weight_decay"])
        if key in by_settings:
            by_settings[key]["params"] += group["params"]
        else:
            by_settings[key] = group
    return list(by_settings.values())


def schedule_factor(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step, counted from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


@torch.inference_mode()
def accuracy(model: nn.Module, split: Split, normalize: Normalizer) -> float:
    """Share of the images whose highest logit is their class."""
    model.eval()
    hits = 0
    for images, labels in zip(split.images.split(EVAL_BATCH), split.labels.split(EVAL_BATCH), strict=True):
        hits += (model(normalize(images)).argmax(1) == labels).sum().item()
    return hits / len(split.labels)


def train(seed: int, splits: dict[str, Split], classes: int, arguments: argparse.Namespace) -> Result:
    """Trains once and scores the best epoch."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    model = build_model(arguments.backbone, arguments.image_size, classes, arguments.head)
    normalize = Normalizer(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    groups = parameter_groups(model, arguments)
    trainable = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)

    train_split = splits["train"]
    count = len(train_split.labels)
    steps = arguments.epochs * math.ceil(count / arguments.batch_size)
    warmup = round(arguments.warmup * steps) if arguments.warmup < 1 else int(arguments.warmup)
    step = 0
    train_seconds = 0.0
    best = {"val": -1.0, "train": 0.0, "epoch": 0}
    best_weights: list[Tensor] = []
    losses = []

    for epoch in range(1, arguments.epochs + 1):
        epoch_began = time.perf_counter()
        model.train()
        hits = 0
        loss_sum = 0.0
        for batch in torch.randperm(count).split(arguments.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule_factor(step, steps, warmup)
            images = normalize(train_split.images[batch])
            if arguments.hflip > 0:
                images = flip(images, 3, arguments.hflip)
            if arguments.vflip > 0:
                images = flip(images, 2, arguments.vflip)
            logits = model(images)
            loss = F.cross_entropy(logits, train_split.labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trainable, arguments.clip_grad)
            optimizer.step()
            hits += (logits.detach().argmax(1) == train_split.labels[batch]).sum().item()
            loss_sum += loss.item() * len(batch)
            step += 1
        train_seconds += time.perf_counter() - epoch_began
        losses.append(loss_sum / count)
        val = accuracy(model, splits["val"], normalize)
        if arguments.verbose:
            print(f"seed {seed} epoch {epoch:2} train {hits / count:.4f} val {val:.4f}", file=sys.stderr)
        if val > best["val"]:
            best = {"val": val, "train": hits / count, "epoch": epoch}
            best_weights = [parameter.detach().clone() for parameter in trainable]

    with torch.no_grad():
        for parameter, value in zip(trainable, best_weights, strict=True):
            parameter.copy_(value)
    test = accuracy(model, splits["test"], normalize)
    return Result(
        seed=seed,
        best_epoch=best["epoch"],
        train_accuracy=best["train"],
        val_accuracy=best["val"],
        test_accuracy=test,
        train_seconds=train_seconds,
        seconds=time.perf_counter() - began,
        images_per_second=arguments.epochs * count / train_seconds,
        losses=losses,
    )


@torch.inference_mode()
def forward_speed(name: str, arguments: argparse.Namespace) -> float:
    """Images per second of a model with random weights: the median batch after one to warm up."""
    size = arguments.forward_size or timm.get_pretrained_cfg(name).input_size[-1]
    model = timm.create_model(name, num_classes=0, img_size=size).eval()
    images = torch.randn(arguments.forward_batch, 3, size, size)
    model(images)
    seconds = []
    for _ in range(arguments.forward_batches):
        began = time.perf_counter()
        model(images)
        seconds.append(time.perf_counter() - began)
    return arguments.forward_batch / statistics.median(seconds)


def machine(arguments: argparse.Namespace) -> dict:
    """What a number needs beside it."""
    return {
        "torch": torch.__version__,
        "timm": timm.__version__,
        "threads": torch.get_num_threads(),
        "workers": arguments.workers,
        "process_seconds": time.perf_counter() - STARTED,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def run_training(arguments: argparse.Namespace) -> dict:
    """All seeds of one strategy."""
    classes = sorted(path.name for path in (arguments.data / "train").iterdir() if path.is_dir())
    splits = {
        name: load_split(arguments.data / name, classes, arguments.image_size, arguments.workers)
        for name in ("train", "val", "test")
    }
    results = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        result = train(seed, splits, len(classes), arguments)
        results.append(result)
        if not arguments.json:
            print(
                f"seed {seed}: val {100 * result.val_accuracy:.2f} % (epoch {result.best_epoch}), "
                f"test {100 * result.test_accuracy:.2f} %, {result.seconds:.1f} s, "
                f"{result.images_per_second:.1f} images/s",
                flush=True,
            )
    settings = {name: getattr(arguments, name) for name in (*Recipe.__dataclass_fields__, "hflip", "vflip")}
    summary = {
        "strategy": arguments.strategy,
        "image_size": arguments.image_size,
        "settings": settings,
        "runs": [asdict(result) for result in results],
        "val_accuracy": spread([result.val_accuracy for result in results]),
        "test_accuracy": spread([result.test_accuracy for result in results]),
        "images_per_second": spread([result.images_per_second for result in results]),
    } | machine(arguments)
    trained = arguments.epochs * len(splits["train"].labels) * len(results)
    summary["process_images_per_second"] = trained / summary["process_seconds"]
    return summary


def run_forward(arguments: argparse.Namespace) -> dict:
    """Forward speed of each model."""
    speeds = {}
    for name in arguments.forward or FORWARD_MODELS:
        speeds[name] = forward_speed(name, arguments)
        if not arguments.json:
            print(f"{name}: {speeds[name]:.2f} images/s", flush=True)
    return {"images_per_second": speeds, "batch": arguments.forward_batch} | machine(arguments)


def parse_arguments() -> argparse.Namespace:
    """The flags, with the defaults of the strategy's recipe filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", choices=RECIPES, default="partial")
    for name, field in Recipe.__dataclass_fields__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=field.type, help="default: the strategy's recipe")
    parser.add_argument("--blocks", type=int, default=3, help="trained blocks of partial")
    parser.add_argument("--clip-grad", type=float, default=1.0)
    parser.add_argument("--hflip", type=float, default=0.0, help="probability")
    parser.add_argument("--vflip", type=float, default=0.0, help="probability")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--seed", type=int, default=42, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--threads", type=int, default=2, help="compute threads of PyTorch")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode, before training starts")
    parser.add_argument("--backbone", type=Path, default=REPOSITORY / "assets" / "vit-mini")
    parser.add_argument("--head", type=Path, help="start from head.weight and head.bias of this file")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "data" / "textile")
    parser.add_argument("--forward", nargs="*", metavar="MODEL", help="measure forward speed instead of training")
    parser.add_argument("--forward-size", type=int, help="side of its images; default: the model's own")
    parser.add_argument("--forward-batch", type=int, default=32)
    parser.add_argument("--forward-batches", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--verbose", action="store_true", help="one line an epoch on stderr")
    arguments = parser.parse_args()
    for name, value in asdict(RECIPES[arguments.strategy]).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main() -> None:
    """Runs what the flags ask for and prints it."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    summary = run_training(arguments) if arguments.forward is None else run_forward(arguments)
    if arguments.json:
        print(json.dumps(summary, indent=2))
        return
    if arguments.forward is None:
        for split in ("val", "test"):
            score = summary[f"{split}_accuracy"]
            print(f"{split}: {100 * score['mean']:.2f} ± {100 * score['sd']:.2f} %")
        print(f"training loop: {summary['images_per_second']['mean']:.1f} images/s")
        print(f"whole process: {summary['process_images_per_second']:.1f} images/s, {summary['process_seconds']:.1f} s")
    print(f"peak memory: {summary['peak_memory_bytes'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
