"""vitadapt's t-SNE beside scikit-learn's and openTSNE's, on the features of real images.

    cargo bench -p benches --no-run --bench tsne_run
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

    model = timm.create_model(f"local-dir:{model_folder}", pretrained=True).eval()
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


def ours(points, threads: int, program: str | None):
    from safetensors.numpy import save_file
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "features.safetensors", Path(folder) / "map"
        save_file({"features": points}, source)
        bench = ["cargo", "bench", "--quiet", "--package", "benches", "--bench", "tsne_run", "--"]
        command = [program] if program else bench
        done = subprocess.run([*command, str(source), str(out)], check=True, capture_output=True, text=True,
                              cwd=REPOSITORY, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
        return np.fromfile(out).reshape(-1, 2), json.loads(done.stdout)["seconds"]


def scikit_learn(points, threads: int, _):
    from sklearn.manifold import TSNE

    model = TSNE(perplexity=OPTIONS["perplexity"], max_iter=OPTIONS["iterations"], n_jobs=threads, random_state=0)
    started = time.perf_counter()
    found = model.fit_transform(points)
    return found, time.perf_counter() - started


def open_tsne(points, threads: int, _):
    import numpy as np
    import openTSNE

    model = openTSNE.TSNE(perplexity=OPTIONS["perplexity"], early_exaggeration_iter=250,
                          n_iter=OPTIONS["iterations"] - 250, n_jobs=threads, random_state=0)
    started = time.perf_counter()
    found = model.fit(points)
    return np.asarray(found), time.perf_counter() - started


def sparse_p(points):
    """Joint probabilities from exact neighbours, by scikit-learn."""
    from sklearn.manifold._t_sne import _joint_probabilities_nn
    from sklearn.neighbors import NearestNeighbors

    k = min(len(points) - 1, int(3 * OPTIONS["perplexity"] + 1))
    graph = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors_graph(mode="distance")
    graph.data **= 2
    return _joint_probabilities_nn(graph, OPTIONS["perplexity"], 0).tocoo()


def divergence(p, found) -> float:
    """KL(P || Q) with the sum over all pairs, in f64."""
    import numpy as np

    found = found.astype(np.float64)
    z = -float(len(found))
    for start in range(0, len(found), 500):
        squared = ((found[start:start + 500, None] - found[None]) ** 2).sum(2)
        z += (1 / (1 + squared)).sum()
    squared = ((found[p.row] - found[p.col]) ** 2).sum(1)
    kept = p.data > 0
    return float((p.data[kept] * np.log(p.data[kept] * (1 + squared[kept]) * z)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a timm backbone")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--points", type=int, nargs="*", default=[2000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--program", help="a built tsne_run, instead of cargo bench")
    arguments = parser.parse_args()

    import openTSNE
    import sklearn
    from sklearn.manifold import trustworthiness

    programs = {"vitadapt": ours, f"scikit-learn {sklearn.__version__}": scikit_learn,
                f"openTSNE {openTSNE.__version__}": open_tsne}
    everything = features(arguments.model, arguments.images, max(arguments.points))
    print(f"{arguments.threads} threads, load before: {os.getloadavg()[0]:.2f}, {arguments.rounds} rounds, medians")
    print("| points | | seconds | KL | trustworthiness (12) |")
    print("|---|---|---|---|---|")
    for count in arguments.points:
        points = everything[:count]
        p = sparse_p(points)
        seconds = {name: [] for name in programs}
        found = {}
        for _ in range(arguments.rounds):
            for name, run in programs.items():
                found[name], taken = run(points, arguments.threads, arguments.program)
                seconds[name].append(taken)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for name, embedding in found.items():
            trust = trustworthiness(points, embedding, n_neighbors=12)
            print(f"| {count} | {name} | {medians[name]:.2f} | {divergence(p, embedding):.4f} | {trust:.4f} |")
        others = [value for name, value in medians.items() if name != "vitadapt"]
        print(f"| | ratio to the faster | {min(others) / medians['vitadapt']:.1f} times faster | | |", flush=True)


if __name__ == "__main__":
    main()
