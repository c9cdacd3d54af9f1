"""Formula-driven images: IFS fractals and anisotropic noise textures, label = generator parameters."""

import numpy as np, numba as nb, math


@nb.njit(cache=True, fastmath=True)
def ifs(A, p, n, seed, size, rot, flip, pr):
    np.random.seed(seed)
    K = A.shape[0]
    cum = np.cumsum(p)
    xs = np.empty(n, np.float32)
    ys = np.empty(n, np.float32)
    x = 0.0
    y = 0.0
    for i in range(n + 50):
        r = np.random.random()
        k = 0
        while k < K - 1 and r > cum[k]:
            k += 1
        nx = A[k, 0] * x + A[k, 1] * y + A[k, 4]
        ny = A[k, 2] * x + A[k, 3] * y + A[k, 5]
        x = nx
        y = ny
        if i >= 50:
            xs[i - 50] = x
            ys[i - 50] = y
    c = math.cos(rot)
    s = math.sin(rot)
    for i in range(n):
        a = xs[i]
        b = ys[i]
        if flip:
            a = -a
        xs[i] = c * a - s * b
        ys[i] = s * a + c * b
    mx = xs.min()
    Mx = xs.max()
    my = ys.min()
    My = ys.max()
    img = np.zeros((size, size), np.float32)
    w = max(Mx - mx, My - my) + 1e-6
    for i in range(n):
        u = int((xs[i] - mx) / w * (size - 6)) + 3
        v = int((ys[i] - my) / w * (size - 6)) + 3
        if u < 0 or v < 0 or u >= size or v >= size:
            continue
        if pr == 0:
            img[v, u] += 1
        else:
            for du in range(-1, 2):
                for dv in range(-1, 2):
                    if (pr >> ((du + 1) * 3 + dv + 1)) & 1:
                        if 0 <= u + du < size and 0 <= v + dv < size:
                            img[v + dv, u + du] += 1
    return img


def make_ifs(seed):
    rng = np.random.default_rng(seed)
    while True:
        K = rng.integers(2, 7)
        A = rng.uniform(-1, 1, (K, 6)).astype(np.float64)
        d = np.abs(A[:, 0] * A[:, 3] - A[:, 1] * A[:, 2])
        # contractive on average
        s = [np.linalg.svd(a[:4].reshape(2, 2), compute_uv=False)[0] for a in A]
        if max(s) > 1.0:
            continue
        p = d / d.sum() if d.sum() > 1e-6 else np.ones(K) / K
        im = ifs(A, p, 20000, 1, 64, 0.0, False, 0)
        if not np.isfinite(im).all():
            continue
        if (im > 0).mean() > 0.2:
            return A, p


class Gen:
    def __init__(s, n_frac=256, n_tex=256, size=112, seed=0):
        s.n_frac, s.n_tex, s.size = n_frac, n_tex, size
        s.F = [make_ifs(seed * 100000 + i) for i in range(n_frac)]
        rng = np.random.default_rng(seed + 7)
        s.T = [
            dict(
                ang=rng.uniform(0, np.pi),
                f0=np.exp(rng.uniform(np.log(2), np.log(40))),
                bw=rng.uniform(0.2, 1.2),
                an=np.exp(rng.uniform(0, np.log(6))),
                beta=rng.uniform(0, 2.5),
                kind=int(rng.integers(0, 4)),
                gam=rng.uniform(0.5, 2),
                dens=rng.uniform(0.2, 0.8),
            )
            for _ in range(n_tex)
        ]
        fy = np.fft.fftfreq(size)[:, None] * size
        fx = np.fft.rfftfreq(size)[None] * size
        s.fx, s.fy = fx, fy

    def gray(s, c, rng):
        S = s.size
        if c < s.n_frac:
            A, p = s.F[c]
            A = A.copy()
            k = rng.integers(0, A.shape[0])
            A[k] *= 1 + rng.uniform(-0.12, 0.12, 6)
            pr = int(rng.integers(0, 512))
            im = ifs(
                A,
                p,
                int(rng.integers(15000, 40000)),
                int(rng.integers(1 << 30)),
                S,
                float(rng.uniform(-0.5, 0.5)),
                bool(rng.random() < 0.5),
                pr,
            )
            if not np.isfinite(im).all():
                im = np.zeros((S, S), np.float32)
            m = rng.integers(0, 3)
            im = np.minimum(im, 1 + rng.integers(0, 6))
            im = im / (im.max() + 1e-6)
            if m == 0:
                im = (im > 0).astype(np.float32)
        else:
            t = s.T[c - s.n_frac]
            a = t["ang"] + rng.normal() * 0.06
            u = s.fx * np.cos(a) + s.fy * np.sin(a)
            v = -s.fx * np.sin(a) + s.fy * np.cos(a)
            r = np.sqrt((u * t["an"]) ** 2 + v**2) + 1e-3
            f0 = t["f0"] * np.exp(rng.normal() * 0.05)
            H = np.exp(-(np.log(r / f0) ** 2) / (2 * t["bw"] ** 2)) * r ** (-t["beta"] * 0.5)
            H[0, 0] = 0
            z = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(S, S))) * H, s=(S, S))
            z = z / (z.std() + 1e-6)
            if t["kind"] == 1:
                z = np.abs(z) ** t["gam"]
            elif t["kind"] == 2:
                z = (z > np.quantile(z, t["dens"])).astype(np.float32)
            elif t["kind"] == 3:
                z = np.sin(z * 3 * t["gam"])
            im = z
        im = im.astype(np.float32)
        im = (im - im.mean()) / (im.std() + 1e-4)
        return im

    def sample(s, c, rng):
        im = s.gray(c, rng)
        con = rng.uniform(0.1, 0.35)
        fg = rng.normal(size=3) * 0.08
        base = rng.uniform(0.25, 0.75) + rng.normal(size=3) * 0.05 * (rng.random() < 0.5)
        sg = -1 if (c < s.n_frac and rng.random() < 0.5) else 1
        x = base[:, None, None] + sg * (con + fg * (rng.random() < 0.5))[:, None, None] * im[None]
        if rng.random() < 0.5:
            g = np.linspace(-1, 1, s.size, dtype=np.float32) * rng.uniform(-0.2, 0.2)
            x = x + (g[None, :, None] if rng.random() < 0.5 else g[None, None, :])
        if rng.random() < 0.3:
            x = x + rng.normal(size=(1, s.size, s.size)) * rng.uniform(0, 0.08)
        return np.clip(x, 0, 1).astype(np.float32)


if __name__ == "__main__":
    import time

    g = Gen()
    rng = np.random.default_rng(0)
    t = time.time()
    xs = [g.sample(int(c), rng) for c in rng.integers(0, 512, 64)]
    print((time.time() - t) / 64 * 1e3, "ms/img")
    t = time.time()
    xs = [g.sample(int(c), rng) for c in rng.integers(0, 512, 64)]
    print((time.time() - t) / 64 * 1e3, "ms/img")
    from PIL import Image

    W = Image.new("RGB", (8 * 112, 8 * 112))
    for i, x in enumerate(xs):
        W.paste(Image.fromarray((x.transpose(1, 2, 0) * 255).astype(np.uint8)), ((i % 8) * 112, (i // 8) * 112))
    W.save("fdsl.png")
