"""Answers of an ONNX export for image files, as `vitadapt predict` gives them: with onnxruntime, Pillow and NumPy alone.

    python examples/predict_onnx.py fabric.onnx new/*.jpg

All it needs to know is in the file: which square an image becomes, how colours are standardised, what classes are called.
Prints one line of JSON for each image.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def upright(path, facts):
    """The pixels of a file as a camera held it, in 8 bits, shape (height, width, 3)."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):
        white = 2 ** facts["bit_depth"] - 1
        grey = np.minimum((np.asarray(image).astype(np.uint32) * 255 + white // 2) // white, 255)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def square(pixels, facts):
    """The pixels as the model sees them, shape (side, side, 3)."""
    side, how, kernel = facts["image_size"], facts["resize"], facts["interpolation"]
    height, width, _ = pixels.shape
    if how == "squash":
        return resized(pixels, (side, side), kernel)
    if how == "letterbox":
        scale = side / max(width, height)
        width, height = (max(1, int(length * scale + 0.5)) for length in (width, height))
        whole = np.empty((side, side, 3))
        whole[:] = [int(255 * value + 0.5) for value in facts["mean"]]
        left, upper = (side - width) // 2, (side - height) // 2
        whole[upper : upper + height, left : left + width] = resized(pixels, (width, height), kernel)
        return whole
    short = int(side / facts["crop_pct"])
    if width <= height:
        width, height = short, short * height // width
    else:
        width, height = short * width // height, short
    left, upper = round((width - side) / 2), round((height - side) / 2)
    return resized(pixels, (width, height), kernel)[upper : upper + side, left : left + side]


def resized(pixels, size, kernel):
    """Pillow's `resize`, but rounded as vitadapt does it: `Image.resize` differs by a level here and there."""
    for axis, length in ((1, size[0]), (0, size[1])):
        if pixels.shape[axis] != length:
            weights, bits = shares(pixels.shape[axis], length, kernel)
            sums = np.moveaxis(np.tensordot(weights, pixels.astype(np.float64), (1, axis)), 0, axis)
            pixels = np.clip((sums + 2 ** (bits - 1)) // 2**bits, 0, 255)
    return pixels


def shares(source, target, kernel):
    """How much of each source pixel each target pixel gets, in units of 2^-bits that fit 16 bits."""
    scale = source / target
    centres = (np.arange(target)[:, None] + 0.5) * scale - 0.5
    x = np.abs(np.arange(source) - centres) / max(scale, 1.0)
    if kernel == "bilinear":
        weights = np.maximum(1 - x, 0)
    else:
        weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    bits = next(bits for bits in range(22) if bits == 21 or round(weights.max() * 2 ** (bits + 1)) >= 2**15)
    return np.rint(weights * 2**bits), bits


def main():
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    classes, facts = json.loads(metadata["classes"]), json.loads(metadata["input"])
    for path in sys.argv[2:]:
        pixels = (square(upright(path, facts), facts) / 255 - facts["mean"]) / facts["std"]
        pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        probabilities = session.run(["probabilities"], {"pixel_values": pixels})[0][0]
        best = int(probabilities.argmax())
        everything = {name: round(float(value), 6) for name, value in zip(classes, probabilities)}
        print(json.dumps({"path": path, "label": classes[best], "probabilities": everything}))


if __name__ == "__main__":
    main()
