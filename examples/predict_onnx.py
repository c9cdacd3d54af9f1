"""Answers of an ONNX export for image files, as `vitadapt predict` gives them: with onnxruntime, Pillow and NumPy alone.

    python examples/predict_onnx.py fabric.onnx new/*.jpg

All it needs to know is in the file: which size an image gets or which tiles it becomes, how colours are standardised, what classes are
called.
Prints one line of JSON for each image.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


FILTERS = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR}


def upright(path, facts):
    """A file as a camera held it, in 8 bits."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):
        white = 2 ** facts["bit_depth"] - 1
        grey = np.minimum((np.asarray(image).astype(np.uint32) * 255 + white // 2) // white, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def resized(image, facts):
    """The image as the model sees it."""
    size, how, kernel = facts["image_size"], facts["resize"], FILTERS[facts["interpolation"]]
    h, w = size if isinstance(size, list) else (size, size)
    width, height = image.size
    if how == "squash":
        return image.resize((w, h), kernel)
    if how == "letterbox":
        ratio = max(width / w, height / h)
        width, height = (max(1, round(length / ratio)) for length in (width, height))
        whole = Image.new("RGB", (w, h), tuple(int(255 * value + 0.5) for value in facts["mean"]))
        whole.paste(image.resize((width, height), kernel), ((w - width) // 2, (h - height) // 2))
        return whole
    before = [int(side / facts["crop_pct"]) for side in (w, h)]
    if w != h:
        ratio = min(width / before[0], height / before[1])
        width, height = round(width / ratio), round(height / ratio)
    elif width <= height:
        width, height = before[0], before[0] * height // width
    else:
        width, height = before[0] * width // height, before[0]
    left, upper = round((width - w) / 2), round((height - h) / 2)
    return image.resize((width, height), kernel).crop((left, upper, left + w, upper + h))


def tiles(image, facts):
    """The tiles that the image is cut into, in rows from the upper left; the last of each ends at the border. Staggered, one
    more lies in the middle of every four."""
    side, stride = facts["tiles"]["side"], facts["tiles"]["side"] - facts["tiles"]["overlap"]

    def spans(length):
        count = 1 + max(0, -(-(length - side) // stride))
        own = min(side, length)
        return [(min(tile * stride, length - own), own) for tile in range(count)]

    def between(spans):
        return [((one + other) // 2, own) for (one, own), (other, _) in zip(spans, spans[1:])]

    across, down = spans(image.width), spans(image.height)
    grids = [(across, down)] + [(between(across), between(down))] * facts["tiles"]["staggered"]
    squares = [(x, y, x + w, y + h) for columns, rows in grids for y, h in rows for x, w in columns]
    return [resized(image.crop(edges), facts) for edges in squares]


def main():
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    classes, facts = json.loads(metadata["classes"]), json.loads(metadata["input"])
    for path in sys.argv[2:]:
        image = upright(path, facts)
        squares = np.stack(tiles(image, facts) if "tiles" in facts else [resized(image, facts)])
        pixels = ((squares / 255 - facts["mean"]) / facts["std"]).transpose(0, 3, 1, 2).astype(np.float32)
        probabilities = session.run(["probabilities"], {"pixel_values": pixels})[0][0]
        best = int(probabilities.argmax())
        everything = {name: round(float(value), 6) for name, value in zip(classes, probabilities)}
        print(json.dumps({"path": path, "label": classes[best], "probabilities": everything}))


if __name__ == "__main__":
    main()
