#include "check.h"
#include "attention.cu"

// As `TILE_ROWS` and the threads in core/src/kernels/cuda/attention.rs.
inline void by_tiles(size_t tokens, size_t heads, std::function<void()> kernel) {
    simulator::launch((tokens + 63) / 64 * heads, 1, 128, kernel);
}

struct Sizes {
    size_t batch, tokens, heads, d;
};

// The result and the gradient of packed q, k and v by their formulas, head by head.
struct Expected {
    std::vector<double> y, dqkv;

    template <typename T>
    Expected(Sizes of, const std::vector<T>& qkv, const std::vector<T>& dy) : y(dy.size()), dqkv(qkv.size()) {
        const size_t t = of.tokens, d = of.d, width = of.heads * d;
        const double scale = 1 / std::sqrt((double)d);
        for (size_t image = 0; image < of.batch; image++)
            for (size_t head = 0; head < of.heads; head++) {
                auto at = [&](size_t token, size_t part, size_t i) {
                    return ((image * t + token) * 3 + part) * width + head * d + i;
                };
                auto out = [&](size_t token, size_t i) { return (image * t + token) * width + head * d + i; };
                for (size_t q = 0; q < t; q++) {
                    std::vector<double> p(t), dp(t);
                    double largest = -INFINITY, sum = 0, dot = 0;
                    for (size_t k = 0; k < t; k++) {
                        for (size_t i = 0; i < d; i++) p[k] += number(qkv[at(q, 0, i)]) * number(qkv[at(k, 1, i)]);
                        largest = std::max(largest, p[k] *= scale);
                    }
                    for (double& x : p) sum += x = std::exp(x - largest);
                    for (size_t k = 0; k < t; k++) {
                        p[k] /= sum;
                        for (size_t i = 0; i < d; i++) {
                            y[out(q, i)] += p[k] * number(qkv[at(k, 2, i)]);
                            dp[k] += number(dy[out(q, i)]) * number(qkv[at(k, 2, i)]);
                        }
                        dot += p[k] * dp[k];
                    }
                    for (size_t k = 0; k < t; k++)
                        for (size_t i = 0; i < d; i++) {
                            const double ds = scale * p[k] * (dp[k] - dot);
                            dqkv[at(q, 0, i)] += ds * number(qkv[at(k, 1, i)]);
                            dqkv[at(k, 1, i)] += ds * number(qkv[at(q, 0, i)]);
                            dqkv[at(k, 2, i)] += p[k] * number(dy[out(q, i)]);
                        }
                }
            }
    }
};

template <typename T, int D, typename Forward, typename Queries, typename Keys>
void cases(Sizes of, Forward forward, Queries dq, Keys dkv) {
    const size_t count = of.batch * of.tokens * of.heads * of.d;
    const float scale = 1 / std::sqrt((float)of.d);
    const auto qkv = drawn<T>(3 * count, 1), dy = drawn<T>(count, 2);
    const Expected expected(of, qkv, dy);
    const size_t heads = of.batch * of.heads;
    auto y = blank<T>(count), dqkv = blank<T>(3 * count);
    auto log_sums = blank<float>(heads * of.tokens), dots = log_sums;
    // Weights are rounded to T, as are the gradients of scores and the result, of which sums over d and tokens are made.
    auto check = [&](const char* what) { compare(what, y, [&](size_t i) { return expected.y[i]; }, 2); };
    by_tiles(of.tokens, heads, [&] { forward(qkv.data(), y.data(), nullptr, of.tokens, of.heads, of.d, scale); });
    check("attention");
    y = blank<T>(count);
    by_tiles(of.tokens, heads, [&] { forward(qkv.data(), y.data(), log_sums.data(), of.tokens, of.heads, of.d, scale); });
    check("attention that leaves its sums");
    by_tiles(of.tokens, heads, [&] {
        dq(qkv.data(), y.data(), dy.data(), log_sums.data(), dqkv.data(), dots.data(), of.tokens, of.heads, of.d, scale);
    });
    by_tiles(of.tokens, heads, [&] {
        dkv(qkv.data(), dy.data(), log_sums.data(), dots.data(), dqkv.data(), of.tokens, of.heads, of.d, scale);
    });
    compare("attention dqkv", dqkv, [&](size_t i) { return expected.dqkv[i]; }, 4 + of.d / 4.0);
}

#define HALF(D, name, T) cases<T, D>(of, attention_##D##_##name, attention_dq_##D##_##name, attention_dkv_##D##_##name)
#define BOTH(D) if (padded == D) { HALF(D, f16, __half); HALF(D, bf16, __nv_bfloat16); }

void both(Sizes of) {
    const size_t padded = (of.d + 31) / 32 * 32;
    BOTH(32) BOTH(64) BOTH(96) BOTH(128)
}

int main() {
    for (Sizes of : {Sizes{1, 1, 1, 8}, Sizes{1, 70, 2, 64}, Sizes{1, 33, 1, 96}, Sizes{1, 33, 1, 128}}) both(of);
    // Around the sizes of tiles and of the pieces that their last one is cut into, and what ViT-B/16 has.
    for (size_t tokens : {15, 16, 17, 63, 64, 65, 197}) both({1, tokens, 1, 64});
    simulator::backwards = true;
    for (Sizes of : {Sizes{2, 40, 3, 24}, Sizes{1, 65, 1, 80}, Sizes{1, 64, 1, 104}}) both(of);
    for (size_t d : {32, 56, 96, 128}) both({1, 200, 1, d});
}
