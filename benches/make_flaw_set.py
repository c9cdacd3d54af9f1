"""Large pictures with small flaws: pictures of woven texture, half of them with one flaw of 12 to 24 pixels.

    pip install numpy==2.3.5 pillow==12.0.0
    python benches/make_flaw_set.py OUT [--width 3000] [--height 2000] [--train 60] [--test 60] [--seed 0]

Writes OUT/train and OUT/test with the classes good and flawed, so many pictures of each, OUT/ground_truth/flawed with the
flaw of each as a mask of the same name, and OUT/boxes.csv. A picture is woven from crops of the nominal textile images in
data/textile, those of its own split, half of them upside down, that fade into each other over 40 pixels. A flaw is
one of four, equally often: grain (noise of twice the deviation of its surroundings), a smear (its surroundings blurred),
a spot (darker or brighter by 4.5 deviations), a thread (a line of 3 pixels, darker or brighter by 5). Its outline is a
ragged ellipse, but for the thread, and its longer side is drawn from 12 to 24 pixels. Spots of 1.5 deviations and threads of
2.5 lie within what the texture itself does: no filter of that size and shape finds them.
"""

import argparse
import csv
import pathlib

import numpy as np
from PIL import Image, ImageFilter

TILE, FADE = 200, 40
KINDS = ["grain", "smear", "spot", "thread"]
ROOT = pathlib.Path(__file__).parent.parent / "data/textile"


def weave(width, height, sources, rng):
    """Crops of the sources side by side, each faded into its neighbours so that contrast stays what it is."""
    step = TILE - FADE
    ramp = np.ones(TILE, np.float32)
    ramp[:FADE] = (np.arange(FADE) + 0.5) / FADE
    ramp[-FADE:] = ramp[:FADE][::-1]
    weight = np.outer(ramp, ramp)[..., None]
    mean = np.mean([source.mean((0, 1)) for source in sources], axis=0)
    picture = np.zeros((height + 2 * TILE, width + 2 * TILE, 3), np.float32)
    total = np.zeros(picture.shape[:2] + (1,), np.float32)
    for y in range(0, height + TILE, step):
        for x in range(0, width + TILE, step):
            source = sources[rng.integers(len(sources))]
            top, left = (int(rng.integers(side - TILE + 1)) for side in source.shape[:2])
            crop = source[top : top + TILE, left : left + TILE] - mean
            # Half a turn leaves the direction of the weave.
            crop = crop[::-1, ::-1] if rng.random() < 0.5 else crop
            picture[y : y + TILE, x : x + TILE] += weight * crop
            total[y : y + TILE, x : x + TILE] += weight**2
    woven = mean + picture / np.sqrt(np.maximum(total, 1e-6))
    return woven[FADE : FADE + height, FADE : FADE + width].astype(np.float32)


def outline(size, kind, rng):
    """A mask of a flaw whose longer side is size."""
    side = size + 8
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    if kind == "thread":
        return (np.abs(along) <= size / 2) & (np.abs(across) <= 1.5)
    angle = np.arctan2(across, along)
    ragged = 1 - 0.2 * (1 + np.sin(3 * angle + rng.uniform(0, 6.3))) * 0.5
    return (along / (size / 2)) ** 2 + (across / (size / 2 * rng.uniform(0.5, 1))) ** 2 <= ragged**2


def add_flaw(picture, rng):
    """Changes the picture; gives the kind, the mask and the box."""
    kind, size = KINDS[rng.integers(len(KINDS))], int(rng.integers(12, 25))
    mask = outline(size, kind, rng)
    side = mask.shape[0]
    top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
    around = picture[max(top - side, 0) : top + 2 * side, max(left - side, 0) : left + 2 * side]
    deviation = float(around.mean(2).std())
    patch = picture[top : top + side, left : left + side]
    sign = rng.choice([-1.0, 1.0])
    if kind == "grain":
        changed = patch + rng.normal(0, 2 * deviation, (side, side, 1))
    elif kind == "smear":
        image = Image.fromarray(np.clip(patch, 0, 255).round().astype(np.uint8))
        changed = np.asarray(image.filter(ImageFilter.GaussianBlur(4)), np.float32)
    else:
        changed = patch + sign * (4.5 if kind == "spot" else 5) * deviation
    patch[mask] = changed[mask]
    whole = np.zeros(picture.shape[:2], bool)
    whole[top : top + side, left : left + side] = mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
    return kind, whole, [int(edge) for edge in box]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    for name, default in [("width", 3000), ("height", 2000), ("train", 60), ("test", 60), ("seed", 0)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    masks = args.out / "ground_truth/flawed"
    masks.mkdir(parents=True)
    with open(args.out / "boxes.csv", "w", newline="") as table:
        boxes = csv.writer(table)
        boxes.writerow(["path", "kind", "left", "upper", "right", "lower"])
        for number, split in enumerate(["train", "test"]):
            files = sorted((ROOT / split / "nominal").glob("*.jpg"))
            sources = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]
            for label, name in enumerate(["good", "flawed"]):
                folder = args.out / split / name
                folder.mkdir(parents=True)
                for index in range(getattr(args, split)):
                    rng = np.random.default_rng([args.seed, number, label, index])
                    picture = weave(args.width, args.height, sources, rng)
                    path = folder / f"{split}_{name}_{index:03}.jpg"
                    if name == "flawed":
                        kind, mask, box = add_flaw(picture, rng)
                        boxes.writerow([path.relative_to(args.out), kind, *box])
                        Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{path.stem}_mask.png")
                    Image.fromarray(np.clip(picture, 0, 255).round().astype(np.uint8)).save(path, quality=95)


if __name__ == "__main__":
    main()
