"""Decoding, squashing and standardising side by side with Pillow and torchvision, one thread each, in turn.

    cargo bench -p benches --no-run --bench decode_run      # prints the path of the binary
    pip install torch==2.15.0 torchvision pillow numpy
    python benches/compare_decode.py BINARY [--turns 3]

The textile images (250 x 250 JPEG), and larger pictures made of them: JPEG and PNG of 1600 x 1200, as a camera over a
line gives. Every image to 224 x 224, bicubic with antialiasing, standardised, f32. Medians of images a second.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2 import functional

SIDE = 224
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DATA = Path(__file__).resolve().parent.parent / "data" / "textile" / "test"


def with_pillow(path: Path) -> numpy.ndarray:
    with Image.open(path) as image:
        square = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(square, dtype=numpy.float32) / 255
    return ((pixels - numpy.float32(MEAN)) / numpy.float32(STD)).transpose(2, 0, 1).copy()


def with_torchvision(path: Path) -> torch.Tensor:
    image = decode_image(read_file(str(path)), ImageReadMode.RGB)
    image = functional.resize(image, [SIDE, SIDE], functional.InterpolationMode.BICUBIC, antialias=True)
    return functional.normalize(functional.to_dtype(image, torch.float32, scale=True), MEAN, STD)


def speed(load, files: list[Path]) -> float:
    load(files[0])
    started = time.perf_counter()
    for file in files:
        load(file)
    return len(files) / (time.perf_counter() - started)


def ours(binary: str, folder: Path) -> float:
    done = subprocess.run([binary, str(folder), str(SIDE)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}, one thread each\n")
    print("| images | vitadapt | Pillow | torchvision | against the faster |")
    print("|---|---|---|---|---|")
    small = sorted((DATA / "nominal").glob("*.jpg"))
    with tempfile.TemporaryDirectory() as made:
        folders = {"JPEG 250 x 250": DATA / "nominal"}
        for suffix, options in {"jpg": {"quality": 90}, "png": {}}.items():
            folder = Path(made) / suffix
            folder.mkdir()
            for path in small[:12]:
                with Image.open(path) as image:
                    large = image.convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
                    large.save(folder / f"{path.stem}.{suffix}", **options)
            folders[f"{'JPEG' if suffix == 'jpg' else 'PNG'} 1600 x 1200"] = folder
        for name, folder in folders.items():
            files = sorted(folder.iterdir())
            turns = [(ours(arguments.binary, folder), speed(with_pillow, files), speed(with_torchvision, files))
                     for _ in range(arguments.turns)]
            medians = [statistics.median(column) for column in zip(*turns)]
            print(f"| {name} | {' | '.join(f'{value:.0f}' for value in medians)} "
                  f"| {medians[0] / max(medians[1:]):.2f} x |", flush=True)


if __name__ == "__main__":
    main()
