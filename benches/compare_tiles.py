"""vitadapt and a PyTorch loop side by side: features of large images by tiles, maximum over patches and tiles.

    cargo build --release
    pip install torch==2.15.0 timm==1.0.28 safetensors==0.8.0 pillow==12.0.0 numpy==2.3.5
    python benches/make_flaw_set.py SET --train 4 --test 4
    python benches/compare_tiles.py SET [--vitadapt target/release/vitadapt] [--threads 2] [--images 8] [--batch 64]

Both read the images of SET/train and SET/test, cut them into tiles of 112 pixels that overlap by 14 at least, run
builtin:vit-flaw (in timm: vit_tiny_patch16_224 with patch 8 and 6 blocks) in f32, and take the maximum of each value.
Each runs once in a process of its own, vitadapt without its cache. Prints images and tiles a second by the clock, the start
of the process counted; the seconds that its threads computed, which other work on the machine hardly changes; peak memory;
and the largest difference between the features.
"""

import argparse
import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time

SIDE, OVERLAP = 112, 14
ROOT = pathlib.Path(__file__).parent.parent


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("set", type=pathlib.Path)
    parser.add_argument("--vitadapt", default=str(ROOT / "target/release/vitadapt"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--torch", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(args):
    """The images, the same number of each class and split."""
    folders = [args.set / split / label for split in ["train", "test"] for label in ["good", "flawed"]]
    return [file for folder in folders for file in sorted(folder.glob("*.jpg"))[: max(args.images // 4, 1)]]


def spans(length):
    stride = SIDE - OVERLAP
    count = 1 + max(-(-(length - SIDE) // stride), 0)
    return [min(tile * stride, length - SIDE) for tile in range(count)]


def theirs(args):
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import numpy as np
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    torch.set_num_threads(args.threads)
    model = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, patch_size=8, depth=6, num_classes=0).eval()
    weights = load_file(ROOT / "assets/vit-flaw/model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    rows, tiles, start = [], 0, time.process_time()
    with torch.inference_mode():
        for file in chosen(args):
            image = np.asarray(Image.open(file).convert("RGB"), np.float32) / 127.5 - 1
            places = [(x, y) for y in spans(image.shape[0]) for x in spans(image.shape[1])]
            largest = None
            for first in range(0, len(places), args.batch):
                crops = [image[y : y + SIDE, x : x + SIDE] for x, y in places[first : first + args.batch]]
                pixels = torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).copy())
                found = model.forward_features(pixels)[:, 1:].amax((0, 1))
                largest = found if largest is None else torch.maximum(largest, found)
            rows.append(largest.numpy())
            tiles += len(places)
    np.savez(args.torch, features=np.stack(rows), tiles=tiles, loop=time.process_time() - start)


def measured(command):
    """Runs a command: its seconds by the clock, those its threads computed, and its peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main():
    args = arguments()
    if args.torch:
        return theirs(args)
    import numpy as np

    files = chosen(args)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with open(folder / "list.csv", "w", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(["path", "label", "split"])
            rows.writerows([[str(file.resolve()), file.parent.name, "train"] for file in files])
        sets = ["model.backbone=builtin:vit-flaw", "model.pool=max", "preprocess.tiles=true", "cache.max_bytes=0",
                f"run.threads={args.threads}", f"data.manifest={folder / 'list.csv'}", "data.allow_outside=true"]
        command = [args.vitadapt, "extract", "--out", str(folder / "ours.npy"), "--split", "train"]
        ours_took = measured(command + [part for each in sets for part in ("--set", each)])
        theirs_took = measured([sys.executable, *sys.argv, "--torch", str(folder / "theirs.npz")])
        found, ours = np.load(folder / "theirs.npz"), np.load(folder / "ours.npy")
        names = [row["path"] for row in csv.DictReader(open(folder / "ours.csv"))]
        order = [names.index(next(name for name in names if name.endswith(file.name))) for file in files]
        difference = np.abs(ours[order] - found["features"]).max()
    tiles = int(found["tiles"])
    print(f"{len(files)} images, {tiles} tiles, {args.threads} threads; largest difference {difference:.1e}")
    for name, (clock, computed, peak) in [("vitadapt", ours_took), ("PyTorch", theirs_took)]:
        speeds = f"{len(files) / clock:.3f} images/s {tiles / clock:.1f} tiles/s"
        print(f"{name:9} {clock:7.1f} s {speeds}, {computed:.1f} s computed, {peak:.0f} MiB")
    print(f"PyTorch's loop without imports computed {float(found['loop']):.1f} s")


if __name__ == "__main__":
    main()
