"""ViT (patch 8, width 192, 6 blocks) pretrained on procedural textures with procedural flaws: class of the formula, kinds of flaw (cls), flawed tokens.
usage: pretrain_flaws.py MINUTES OUT [RESUME]"""

import numpy as np, torch, timm, sys, time, math, os

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from formulas import Gen
from scipy import ndimage as nd

torch.set_num_threads(2)
S = 112
P = 8
B = 64
KINDS = ["noise", "blur", "blob", "scratch", "paste", "dots", "hole", "shuffle"]


def mask(rng, S):
    r = np.exp(rng.uniform(np.log(1.5), np.log(14)))
    asp = np.exp(rng.uniform(-1.2, 1.2))
    a = rng.uniform(0, np.pi)
    y, x = np.mgrid[:S, :S] - S / 2
    u = x * np.cos(a) + y * np.sin(a)
    v = -x * np.sin(a) + y * np.cos(a)
    d = np.sqrt((u / asp**0.5) ** 2 + (v * asp**0.5) ** 2) / r
    return d * (1 + 0.35 * nd.gaussian_filter(rng.normal(size=(S, S)), 3) * 6 * rng.random()) < 1


def line(rng, S):
    L = rng.uniform(8, 80)
    a = rng.uniform(0, np.pi)
    t = np.linspace(-L / 2, L / 2, int(L * 2))
    cv = rng.normal() * 0.004
    px = (S / 2 + t * np.cos(a) - cv * t * t * np.sin(a)).round().astype(int)
    py = (S / 2 + t * np.sin(a) + cv * t * t * np.cos(a)).round().astype(int)
    ok = (px >= 0) & (px < S) & (py >= 0) & (py < S)
    m = np.zeros((S, S), bool)
    m[py[ok], px[ok]] = 1
    return nd.binary_dilation(m) if rng.random() < 0.5 else m


def place(m, rng):
    dy, dx = rng.integers(-S // 2, S // 2, 2)
    out = np.zeros_like(m)
    ys = slice(max(0, dy), min(S, S + dy))
    xs = slice(max(0, dx), min(S, S + dx))
    out[ys, xs] = m[max(0, -dy) : min(S, S - dy), max(0, -dx) : min(S, S - dx)]
    return out[:, ::-1] if rng.random() < 0.5 else out


class Bank:
    def __init__(s, n, seed):
        g = Gen(size=S)
        rng = np.random.default_rng(seed)
        cs = rng.integers(0, 512, n)
        cs = np.where((cs < 256) & (rng.random(n) < 0.5), cs + 256, cs)
        s.c = cs
        s.x = np.stack([(g.sample(int(c), rng) * 255).astype(np.uint8) for c in cs])
        s.m = np.stack([mask(rng, S) for _ in range(1500)])
        s.l = np.stack([line(rng, S) for _ in range(500)])


def flaw(x, rng, b):
    k = int(rng.integers(len(KINDS)))
    n = KINDS[k]
    sd = x.std() + 0.02
    m = place((b.l if n == "scratch" else b.m)[rng.integers(len(b.l if n == "scratch" else b.m))], rng)
    ys, xs = np.nonzero(m)
    if len(ys) < 4:
        return x, m & False, -1
    y = x.copy()
    N = len(ys)
    if n == "noise":
        y[:, ys, xs] += (
            rng.normal(size=(1 if rng.random() < 0.7 else 3, N)).astype(np.float32) * sd * rng.uniform(0.6, 3)
        )
    elif n == "blur":
        s = rng.uniform(1.2, 4)
        a, b2, c, d = max(0, ys.min() - 8), ys.max() + 9, max(0, xs.min() - 8), xs.max() + 9
        z = np.stack([nd.gaussian_filter(q, s) for q in x[:, a:b2, c:d]])
        y[:, ys, xs] = z[:, ys - a, xs - c]
    elif n == "blob":
        y += (
            nd.gaussian_filter(m.astype(np.float32), rng.uniform(0.5, 2))
            * sd
            * rng.uniform(1.2, 4)
            * rng.choice([-1, 1])
        )
    elif n == "scratch":
        y[:, ys, xs] += sd * rng.uniform(1.2, 4) * rng.choice([-1, 1])
    elif n == "paste":
        o = (
            b.x[rng.integers(len(b.x))].astype(np.float32) / 255
            if rng.random() < 0.5
            else np.roll(x, tuple(rng.integers(10, S - 10, 2)), (1, 2))[:, ::-1]
        )
        y[:, ys, xs] = o[:, ys, xs]
    elif n == "dots":
        y[:, ys, xs] += np.where(
            rng.random(N) < rng.uniform(0.15, 0.6), np.where(rng.random(N) < 0.5, -1, 1) * sd * rng.uniform(1.2, 4), 0
        ).astype(np.float32)
    elif n == "hole":
        y[:, ys, xs] = (
            rng.uniform(0, 1, (3, 1)) if rng.random() < 0.3 else (x.mean((1, 2)) + sd * rng.uniform(-3, 3))[:, None]
        )
    else:
        y[:, ys, xs] = y[:, ys, xs][:, rng.permutation(N)]
    y = np.clip(y, 0, 1)
    return y, np.abs(y - x).max(0) > 0.4 * sd, k


class DS(torch.utils.data.IterableDataset):
    def __init__(s, b, seed):
        s.b = b
        s.seed = seed

    def __iter__(s):
        rng = np.random.default_rng(s.seed)
        b = s.b
        while True:
            X = []
            C = []
            T = []
            K = []
            for i in rng.integers(0, len(b.x), B):
                x = b.x[i].astype(np.float32) / 255
                q = rng.integers(8)
                if q & 1:
                    x = x[:, ::-1]
                if q & 2:
                    x = x[:, :, ::-1]
                if rng.random() < 0.35:
                    x = np.repeat(x.mean(0, keepdims=True), 3, 0)
                x = np.clip((x - x.mean()) * rng.uniform(0.6, 1.4) + x.mean() + rng.uniform(-0.12, 0.12), 0, 1).astype(
                    np.float32
                )
                if rng.random() < 0.4:
                    x = np.clip(x + rng.normal(size=(1, S, S)).astype(np.float32) * rng.uniform(0.02, 0.15), 0, 1)
                ch = np.zeros((S, S), bool)
                kk = np.zeros(len(KINDS), np.float32)
                if rng.random() < 0.6:
                    for _ in range(int(rng.integers(1, 3))):
                        x, m, k = flaw(np.ascontiguousarray(x), rng, b)
                        ch |= m
                        if k >= 0 and m.sum() >= 4:
                            kk[k] = 1
                X.append(np.ascontiguousarray(x))
                C.append(b.c[i])
                K.append(kk)
                T.append(ch.reshape(S // P, P, S // P, P).sum((1, 3)).reshape(-1))
            yield (
                torch.from_numpy(np.stack(X)),
                torch.tensor(np.array(C)),
                torch.from_numpy(np.stack(T)),
                torch.from_numpy(np.stack(K)),
            )


class Net(torch.nn.Module):
    def __init__(s, size=S):
        super().__init__()
        s.v = timm.create_model("vit_tiny_patch16_224", img_size=size, patch_size=P, depth=6, num_classes=0)
        D = 192
        s.cls = torch.nn.Linear(D, 512)
        s.kind = torch.nn.Linear(D, len(KINDS))
        s.tok = torch.nn.Linear(D, 1)

    def forward(s, x):
        t = s.v.forward_features(x)
        return s.cls(t[:, 0]), s.kind(t[:, 0]), s.tok(t[:, 1:])[..., 0]


if __name__ == "__main__":
    MIN = float(sys.argv[1])
    OUT = sys.argv[2]
    torch.manual_seed(0)
    m = Net()
    F = torch.nn.functional
    if len(sys.argv) > 3:
        m.load_state_dict(torch.load(sys.argv[3]))
    opt = torch.optim.AdamW(
        [
            {"params": [p for p in m.parameters() if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in m.parameters() if p.ndim <= 1], "weight_decay": 0},
        ],
        lr=1e-3,
        betas=(0.9, 0.95),
    )
    t = time.time()
    b = Bank(12000, 5)
    print("bank", time.time() - t, flush=True)
    dl = iter(torch.utils.data.DataLoader(DS(b, 1), batch_size=None, num_workers=1, prefetch_factor=4))
    t0 = time.time()
    s = 0
    A = np.zeros(5)
    t = time.time()
    while True:
        fr = (time.time() - t0) / 60 / MIN
        if fr >= 1:
            break
        lr = 1e-3 * min((s + 1) / 200, 0.5 * (1 + math.cos(math.pi * fr)))
        for g in opt.param_groups:
            g["lr"] = lr
        x, c, tk, k = next(dl)
        x = (x - 0.5) / 0.5
        o, kd, tt = m(x)
        y = (tk >= 5).float()
        w = ((tk == 0) | (tk >= 5)).float()
        l1 = F.cross_entropy(o, c, label_smoothing=0.1)
        l2 = F.binary_cross_entropy_with_logits(kd, k)
        l3 = (F.binary_cross_entropy_with_logits(tt, y, reduction="none", pos_weight=torch.tensor(4.0)) * w).mean()
        l = 0.25 * l1 + 2 * l2 + 2 * l3
        opt.zero_grad()
        l.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        s += 1
        pr = tt > 0
        A += [
            l1.item(),
            l2.item(),
            l3.item(),
            (pr & (y > 0)).sum().item() / max(1, (y > 0).sum().item()),
            (pr & (tk == 0)).sum().item() / max(1, (tk == 0).sum().item()),
        ]
        if s % 100 == 0:
            print(
                s,
                "cls %.3f kind %.3f tok %.3f recall %.3f fpr %.4f" % tuple(A / 100),
                "%.1f img/s" % (100 * B / (time.time() - t)),
                "%.2f" % fr,
                flush=True,
            )
            A[:] = 0
            t = time.time()
            torch.save(m.state_dict(), OUT)
    torch.save(m.state_dict(), OUT)
