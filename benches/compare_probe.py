"""vitadapt and scikit-learn side by side: a probe at 45 values of C, on the same features, in turn.

    cargo build --release && cargo bench -p benches --no-run --bench probe_path
    pip install scikit-learn==1.9.1 safetensors==0.8.0
    python benches/compare_probe.py BENCH [--repeats 3] [--threads 2]

BENCH is the executable that `cargo bench --no-run` names. Features are drawn in the size of a real probe: overlapping
classes, a decaying spectrum, a mean far from 0. scikit-learn runs as its users run it, in f64 with its default
tolerance: LogisticRegression by each of its two fast solvers, with warm starts, and LinearSVC in the primal. Objectives
of both are computed here, in f64, from the coefficients.

Prints, for each, median seconds, CPU seconds (the whole process for vitadapt), the ratio to vitadapt turn by turn, and how far its objectives lie above vitadapt's, relative, at
the worst and at the best C: a negative number is a C at which scikit-learn is closer to the optimum.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

CASES = [(300, 192, 3), (300, 768, 10), (1000, 768, 10)]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


ARGUMENTS = arguments()
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(ARGUMENTS.threads)  # before numpy is loaded

import numpy as np  # noqa: E402
import sklearn  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from scipy.special import log_softmax  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.svm import LinearSVC  # noqa: E402

GRID = np.logspace(-6, 5, 45)


def draw(n, d, k):
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(d)) ** -0.6
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    means = rng.normal(size=(k, d)) * spectrum
    labels = np.arange(n) % k
    features = (0.6 * means[labels] + rng.normal(size=(n, d)) * spectrum) @ basis * 3 + 0.7 * rng.normal(size=d)
    return features.astype(np.float32), labels.astype(np.int64)


def logistic_objective(x, y, weight, bias, c):
    loss = -log_softmax(x @ weight.T + bias, axis=1)[np.arange(len(y)), y]
    return (loss.sum() + (weight**2).sum() / (2 * c)) / len(y)


def svm_objective(x, y, weight, bias, c):
    sides = np.where(np.arange(len(bias)) == y[:, None], 1.0, -1.0)
    loss = np.maximum(0, 1 - sides * (x @ weight.T + bias))**2
    return (loss.sum() + ((weight**2).sum() + (bias**2).sum()) / (2 * c)) / len(y)


def ours(path, svm):
    command = [ARGUMENTS.bench, path, "--threads", str(ARGUMENTS.threads), "--repeats", "1"] + ["--svm"] * svm
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return (result["seconds"], cpu), [(np.array(w, dtype=float).reshape(len(b), -1), np.array(b)) for w, b in result["heads"]]


def theirs(x, y, model, warm):
    x = x.astype(np.float64)
    heads, start, cpu = [], time.perf_counter(), time.process_time()
    for c in GRID:
        if not warm:
            model = sklearn.base.clone(model)
        model.C = c
        model.fit(x, y)
        heads.append((model.coef_.copy(), model.intercept_.copy()))
    return (time.perf_counter() - start, time.process_time() - cpu), heads


def compare(x, y, path, svm):
    if svm:
        rivals = {"LinearSVC": (LinearSVC(dual=False), False)}
    else:
        rivals = {solver: (LogisticRegression(solver=solver, warm_start=True, max_iter=1000), True)
                  for solver in ("lbfgs", "newton-cg")}
    objective = svm_objective if svm else logistic_objective
    seconds, heads = {"vitadapt": []}, {}
    for _ in range(ARGUMENTS.repeats):
        elapsed, heads["vitadapt"] = ours(path, svm)
        seconds["vitadapt"].append(elapsed)
        for name, (model, warm) in rivals.items():
            elapsed, heads[name] = theirs(x, y, sklearn.base.clone(model), warm)
            seconds.setdefault(name, []).append(elapsed)
    x = x.astype(np.float64)
    values = {name: np.array([objective(x, y, w, b, c) for (w, b), c in zip(fits, GRID)])
              for name, fits in heads.items()}
    for name, times in seconds.items():
        elapsed, cpu = (statistics.median(column) for column in zip(*times))
        ratio = statistics.median(them[0] / us[0] for us, them in zip(seconds["vitadapt"], times))
        gap = values[name] / values["vitadapt"] - 1
        print(f"| {'x'.join(map(str, x.shape))}, {y.max() + 1} classes | {name} | {elapsed:.3f} | {cpu:.2f} "
              f"| {ratio:.1f} | {gap.max():.1e} | {gap.min():.1e} |", flush=True)


def main():
    warnings.filterwarnings("ignore")
    print(f"Python {sys.version.split()[0]}, scikit-learn {sklearn.__version__}, numpy {np.__version__}, "
          f"{ARGUMENTS.threads} threads, {ARGUMENTS.repeats} repeats\n")
    print("| features | solver | seconds | CPU seconds | times vitadapt's | objective above, at most | at least |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        x, y = draw(*case)
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            save_file({"features": x, "labels": y}, file.name)
            for svm in (False, True):
                compare(x, y, file.name, svm)


if __name__ == "__main__":
    main()
