"""vitadapt's t-SNE beside scikit-learn's and openTSNE's, on the features of real images.

    cargo bench --no-run --bench tsne_run
    pip install torch==2.15.0 timm==1.0.31 scikit-learn==1.9.1 openTSNE==1.0.4 pillow==13.0.0 safetensors==0.8.0
    python benches/compare_tsne.py --model FOLDER --images FOLDER [--points 2000 10000] [--rounds 3]

The points are random crops of the images; a point's 768 values are the class tokens of the backbone's last four blocks
(of 192 values each). The three programs take turns, round by round, on all cores, so that a slow spell meets all; time
is that of the whole call, from features to embedding. One exact formula gives every embedding's KL divergence, from one
sparse P, and scikit-learn's trustworthiness judges all three.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
OPTIONS = {"perplexity": 30, "iterations": 1000}


def features(model_folder: Path, image_folder: Path, count: int):
    """(count, 768) class tokens of random crops."""
    import timm
    import torch
    from PIL import Image
    from torchvision import transforms

    model = timm.create_model(f"local-dir:{model_folder}").eval()
    size = model.patch_embed.img_size
    crop = transforms.Compose([
        transforms.RandomResizedCrop(size, scale=(0.3, 1.0)), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ])
    paths = sorted(path for path in image_folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [Image.open(path).convert("RGB") for path in paths]
    torch.manual_seed(0)
    batches = []
    with torch.no_grad():
        for start in range(0, count, 64):
            batch = torch.stack([crop(images[i % len(images)]) for i in range(start, min(start + 64, count))])
            layers = model.forward_intermediates(
                batch, indices=4, return_prefix_tokens=True, intermediates_only=True, norm=True)
            batches.append(torch.cat([prefix[:, 0] for _, prefix in layers], dim=1))
    return torch.cat(batches).numpy()
