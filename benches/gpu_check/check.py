"""Everything about a GPU in one call: is it right, does it come back after trouble, is it fast.

    python check.py [--device cpu] [--quick] [--parts kernels losses ...] [--speeds N] [--minutes 8]
                    [--out results.json]

Runs in what `pack` beside it made: a folder with the program, the program of the kernels' check, and these scripts. Parts
run in the order below; one that fails is reported and the next begins. One Markdown table, one JSON file. `--quick` is for
a second look: fewer shapes, and one model for speed. `--device cpu` tries the parts that need no GPU: kernels, losses, resume
and speed.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

HERE = Path(__file__).resolve().parent
# timm travels along, for machines that have PyTorch alone.
sys.path[:0] = [str(wheel) for wheel in sorted((HERE / "wheels").glob("*.whl"))]

import torch  # noqa: E402
import compare_gpu as peers  # noqa: E402

# Where the program finds cuBLAS and its like if the machine has them with PyTorch only.
LIBRARIES = sorted(str(path) for path in Path(torch.__file__).parent.parent.glob("nvidia/*/lib"))
os.environ["LD_LIBRARY_PATH"] = ":".join([os.environ.get("LD_LIBRARY_PATH", "/usr/local/cuda/lib64"), *LIBRARIES])

NAME = {"S": "vit_small_patch16_224", "B": "vit_base_patch16_224", "L": "vit_large_patch16_224"}
# The most telling first: what does not fit into the time is left out and listed.
SPEEDS = [
    ("B", "full", 64), ("S", "full", 128), ("B", "forward", 128), ("B", "lora", 64), ("L", "full", 64),
    ("B", "partial", 128), ("B", "frozen", 128), ("S", "full", 64), ("L", "lora", 64), ("L", "forward", 128),
    ("B", "full", 128), ("L", "full", 128), ("S", "forward", 128), ("S", "lora", 64), ("L", "partial", 128),
    ("L", "frozen", 128), ("S", "partial", 128), ("S", "frozen", 128),
]
STEPS = 20
# Seconds after which one run of a program counts as hung.
LIMIT = 180


class Check:
    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        self.arguments, self.work = arguments, work
        self.gpu = arguments.device != "cpu"
        self.size = 224 if self.gpu else 64
        self.images = work / "images"
        self.batch = 16 if self.gpu else 4
        self.options = argparse.Namespace(
            vitadapt=HERE / "vitadapt", device="cuda" if self.gpu else "cpu", image_size=self.size, epochs=3,
            eager=not self.gpu, batch_size=self.batch, images=self.batch)
        peers.make_images(self.images, self.batch, self.size)
        peers.make_model(work / NAME["S"], NAME["S"])
        few = arguments.quick or not self.gpu
        self.speeds = SPEEDS[:arguments.speeds or (1 if few else len(SPEEDS))] if "speed" in arguments.parts else []
        self.making = Lock()
        self.compilations = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 4))
        self.begin_compilations()

    def begin_compilations(self) -> None:
        """torch.compile takes a minute for each model and batch, and keeps what it made on disk: the first ones begin now,
        beside the parts that ask for no times."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self.work / "inductor")
        def compile_one(letter: str, strategy: str, batch: int) -> None:
            folder, name, options = self.speed_case(letter, batch)
            peers.their_training(folder, name, strategy, argparse.Namespace(**vars(options) | {"images": batch, "epochs": 2}))
        for case in self.speeds[:4] if self.gpu else []:
            self.compilations.submit(compile_one, *case)

    def quiet(self) -> None:
        """Waits until nothing else uses the GPU."""
        self.compilations.shutdown()

    def speed_case(self, letter: str, batch: int) -> tuple[Path, str, argparse.Namespace]:
        """Folder with images and model, name of the model, and options for `peers`."""
        name = NAME[letter if self.gpu else "S"]
        folder = self.work / f"speed-{batch}"
        options = argparse.Namespace(**vars(self.options) | {"batch_size": batch if self.gpu else 4,
                                                             "images": 16 * batch if self.gpu else 8})
        with self.making:
            if not folder.exists():
                peers.make_images(folder / "images", options.images, self.size)
            if not (folder / name).exists():
                peers.make_model(folder / name, name)
        return folder, name, options

    def settings(self, name: str) -> dict:
        """Of a run of ViT-S in f32 with one step an epoch, so that every step's loss is written down."""
        return peers.common_settings(self.work, NAME["S"], self.options) | {
            "run.name": name, "strategy.kind": "full", "train.epochs": STEPS, "train.batch_size": self.batch,
            "train.accumulate": 1, "train.lr": 1e-5, "early_stop.patience": 0, "report.html": "false",
        }

    def command(self, settings: dict, *flags) -> list:
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return [str(part) for part in (HERE / "vitadapt", "finetune", "--json", *sets, *flags)]

    def train(self, settings: dict, *flags) -> tuple[dict, str]:
        """The JSON that the program printed, and its messages."""
        done = subprocess.run(self.command(settings, *flags), capture_output=True, text=True, timeout=LIMIT)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return json.loads(done.stdout), done.stderr

    def epochs(self, name: str) -> list[dict]:
        lines = (self.work / "runs" / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def kernels(self) -> dict:
        """Every layer against f64, then ViT-S against the CPU, output and gradients."""
        flags = ["--quick"] if self.arguments.quick else []
        line = [HERE / "kernels", self.arguments.device, self.work / NAME["S"], *flags]
        done = subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=LIMIT)
        rows = [json.loads(row) for row in done.stdout.splitlines()]
        failed = [row for row in rows if not row["passed"]]
        # What is no number is null in JSON, and has failed.
        shares = [row["off"] / row["bound"] for row in rows if row.get("off") is not None]
        if done.returncode not in (0, 1) or done.returncode and not failed:
            raise RuntimeError(f"after {len(rows)} checks, {len(failed)} of them failed: {done.stderr[-2000:]}")
        return {"passed": not failed, "checks": len(rows), "worst share of the bound": max(shares, default=None), "failed": failed,
                "all": rows}

    def losses(self) -> dict:
        """The losses of the first steps, in f32 here and on the CPU, and in bf16."""
        device = self.settings("losses-device")["run.device"]
        runs = {"cpu": ("cpu", "f32"), "device": (device, "f32"), "bf16": (device, "bf16")}
        found = {}
        for name, (where, precision) in runs.items():
            self.train(self.settings(f"losses-{name}") | {"run.device": where, "run.precision": precision})
            found[name] = [epoch["train_loss"] for epoch in self.epochs(f"losses-{name}")]
        off = {name: max(abs(a - b) for a, b in zip(found["cpu"], found[name], strict=True)) for name in ("device", "bf16")}
        return {"passed": off["device"] < 1e-3 and off["bf16"] < 5e-2, "largest difference": off, "losses": found}

    def resume(self) -> dict:
        """A run that is killed and resumed against one that is not: the same bits."""
        self.train(self.settings("whole"))
        process = subprocess.Popen(self.command(self.settings("killed")), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        metrics = self.work / "runs" / "killed" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= STEPS // 3):
            time.sleep(0.02)
        killed = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.train(self.settings("killed"), "--resume")
        def bits(name: str) -> list:
            folder = self.work / "runs" / name
            files = sorted(path for path in folder.rglob("*.safetensors") if "best" in path.parts)
            return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        whole, resumed = bits("whole"), bits("killed")
        return {"passed": killed and bool(whole) and whole == resumed, "killed before its end": killed,
                "files": len(whole)}

    def memory(self) -> dict:
        """Forecast against measured peak."""
        if not self.gpu:
            return {"passed": None, "why": "needs a GPU"}
        self.quiet()
        rows = {}
        for strategy in ("frozen", "lora", "full"):
            for precision in ("f32", "bf16"):
                name = f"memory-{strategy}-{precision}"
                settings = self.settings(name) | {
                    "strategy.kind": strategy, "run.precision": precision, "train.epochs": 3, "augment.hflip": 0.5}
                with peers.GpuMemory() as memory:
                    self.train(settings)
                record = json.loads((self.work / "runs" / name / "run.json").read_text())
                parts = record["forecast"]["memory"]
                on_gpu = sum(parts[part] for part in ("weights", "gradients", "optimizer", "activations")) / 2**20
                rows[name] = {"measured MiB": memory.mebibytes, "forecast MiB": round(on_gpu),
                              "note": "only what is measured has the context of CUDA, some 500 MiB"}
        return {"passed": None, "why": "to be read", "rows": rows}

    def shortage(self) -> dict:
        """Another program takes the memory away while a run begins: its steps are halved until they fit."""
        if not self.gpu:
            return {"passed": None, "why": "needs a GPU"}
        self.quiet()
        images = self.work / "many"
        peers.make_images(images, 512, self.size)
        settings = self.settings("shortage") | {
            "data.root": images, "train.batch_size": 256, "train.epochs": 1, "run.precision": "bf16",
            "train.accumulate": 1}
        before = peers.GpuMemory.used()
        process = subprocess.Popen(self.command(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and (peers.GpuMemory.used() or 0) - before < 300:
            time.sleep(0.01)
        free, _ = torch.cuda.mem_get_info()
        ballast = torch.empty(max(0, free - 2 * 2**30), dtype=torch.uint8, device="cuda")
        _, said = process.communicate(timeout=LIMIT)
        del ballast
        torch.cuda.empty_cache()
        halved = [line for line in said.splitlines() if "out of device memory" in line]
        return {"passed": process.returncode == 0 and bool(halved), "said": halved, "exit": process.returncode}

    def speed(self) -> dict:
        """Beside timm with torch.compile, bf16 and fused AdamW."""
        self.quiet()
        rows, left_out = [], []
        for letter, strategy, batch in self.speeds:
            if time.monotonic() > self.arguments.deadline - 60:
                left_out.append(f"{letter} {strategy} {batch}")
                continue
            folder, name, options = self.speed_case(letter, batch)
            try:
                us = peers.our_training(folder, name, strategy, options, None)
                them = peers.their_training(folder, name, strategy, options)
            except (subprocess.CalledProcessError, KeyError, ValueError) as error:
                rows.append({"model": letter, "strategy": strategy, "batch": batch, "error": str(error)[-500:]})
                continue
            ratio = us["images_per_second"] / them["images_per_second"]
            rows.append({"model": letter, "strategy": strategy, "batch": batch, "ratio": ratio, "vitadapt": us,
                         "timm": them})
            print(f"  {letter} {strategy} {batch}: {us['images_per_second']:.0f} images/s, {ratio:.2f} of timm's; "
                  f"memory {us['memory']} and {them['memory']} MiB", flush=True)
        return {"passed": None, "why": "to be read", "rows": rows, "left out": left_out}

    def times(self) -> dict:
        """The time of every kernel by name, and the share of the time in which the GPU has something to do."""
        compiler = shutil.which("nvcc")
        if not self.gpu or not compiler:
            return {"passed": None, "why": "needs a GPU and nvcc"}
        toolkit = Path(compiler).resolve().parent.parent
        library = self.work / "kernel_times.so"
        places = [toolkit, toolkit / "extras" / "CUPTI", *Path(torch.__file__).parent.parent.glob("nvidia/*")]
        includes = [f"-I{place / 'include'}" for place in places if (place / "include").is_dir()]
        cupti = next(path for place in places for folder in ("lib64", "lib")
                     for path in sorted((place / folder).glob("libcupti.so*")))
        subprocess.run(["g++", "-O2", "-shared", "-fPIC", HERE / "kernel_times.cpp", "-o", library, *includes, cupti,
                        f"-Wl,-rpath,{cupti.parent}"], check=True)
        self.quiet()
        folder, name, options = self.speed_case("B", 64)
        found = {}
        sides = {"vitadapt": lambda *case: peers.our_training(*case, None), "timm": peers.their_training}
        for whose, training in list(sides.items())[:1 if self.arguments.quick else 2]:
            times = self.work / f"{whose}.json"
            os.environ |= {"CUDA_INJECTION64_PATH": str(library), "KERNEL_TIMES": str(times)}
            try:
                training(folder, name, "full", options)
            finally:
                del os.environ["CUDA_INJECTION64_PATH"], os.environ["KERNEL_TIMES"]
            found[whose] = json.loads(times.read_text())
        rows = {}
        for whose, record in found.items():
            total = sum(kernel["ns"] for kernel in record["kernels"].values())
            by_time = sorted(record["kernels"].items(), key=lambda item: -item[1]["ns"])
            rows[whose] = {"ms in all": total / 1e6, "busy": record["busy_ns"] / max(1, record["whole_ns"])} | {
                name[:80]: f"{100 * kernel['ns'] / total:.1f} %, {kernel['ns'] / 1e3 / kernel['calls']:.0f} us x {kernel['calls']}"
                for name, kernel in by_time[:40]}
            calls = sorted(record["calls"].items(), key=lambda item: -item[1]["ns"])[:12]
            rows[whose]["calls of the driver"] = {
                name: f"{call['ns'] / 1e6:.1f} ms, {call['calls']} times" for name, call in calls}
        return {"passed": None, "why": "to be read", "rows": rows}


PARTS = ["kernels", "losses", "resume", "shortage", "memory", "speed", "times"]


def shown(result: dict) -> str:
    """A result without its lists, for the table."""
    short = {key: value for key, value in result.items() if key not in ("passed", "all", "losses", "rows", "error")}
    return "; ".join(f"{key}: {value}" for key, value in short.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--speeds", type=int, help="how many of the comparisons of speed")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    arguments = parser.parse_args()
    arguments.deadline = time.monotonic() + 60 * arguments.minutes
    results = {"device": torch.cuda.get_device_name() if arguments.device != "cpu" else "CPU",
               "torch": torch.__version__, "parts": {}}
    with tempfile.TemporaryDirectory() as work:
        check = Check(arguments, Path(work))
        for part in arguments.parts:
            began = time.monotonic()
            try:
                result = getattr(check, part)()
            except Exception as error:  # noqa: BLE001 - the next part may work
                result = {"passed": False, "error": traceback.format_exc(), "why": f"{type(error).__name__}: {error}"[:300]}
            result["seconds"] = round(time.monotonic() - began, 1)
            results["parts"][part] = result
            arguments.out.write_text(json.dumps(results, indent=1))
            print(f"{part}: {'passed' if result['passed'] else 'FAILED' if result['passed'] is False else 'done'} "
                  f"in {result['seconds']} s", flush=True)
    print(f"\n{results['device']}, PyTorch {results['torch']}\n\n| part | result | details |\n|---|---|---|")
    for part, result in results["parts"].items():
        word = {True: "passed", False: "FAILED", None: "–"}[result["passed"]]
        print(f"| {part} | {word} | {shown(result)} |")
    for part, result in results["parts"].items():
        for row in result.get("rows", []) if isinstance(result.get("rows"), list) else result.get("rows", {}).items():
            print(f"{part}: {row}")
    sys.exit(any(result["passed"] is False for result in results["parts"].values()))


if __name__ == "__main__":
    main()
