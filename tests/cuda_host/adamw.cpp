#include "check.h"
#include "adamw.cu"

void cases(size_t count, size_t blocks, float factor) {
    const float beta1 = 0.9f, beta2 = 0.999f, keep = 0.995f, rate = 0.03f, inverse_root = 3, eps = 1e-8f;
    const auto w = drawn<float>(count, 1), g = drawn<float>(count, 2);
    auto m = drawn<float>(2 * count, 3);
    for (size_t i = count; i < 2 * count; i++) m[i] *= m[i]; // second moments are never negative
    auto first = [&](size_t i) { return beta1 * (double)m[i] + (1 - (double)beta1) * factor * g[i]; };
    auto second = [&](size_t i) {
        const double x = (double)factor * g[i];
        return beta2 * (double)m[count + i] + (1 - (double)beta2) * x * x;
    };
    auto weights = w, moments = m;
    by_blocks(blocks, [&] {
        adamw_f32(weights.data(), moments.data(), g.data(), count, factor, beta1, beta2, keep, rate, inverse_root, eps);
    });
    compare("moments", moments, [&](size_t i) { return i < count ? first(i) : second(i - count); });
    compare("weights", weights, [&](size_t i) {
        return keep * (double)w[i] - rate * first(i) / (std::sqrt(second(i)) * inverse_root + eps);
    });
}

int main() {
    for (bool backwards : {false, true}) {
        simulator::backwards = backwards;
        for (size_t count : {1, 24, 255, 256, 257, 1000, 3 * 192 * 5})
            for (size_t blocks : {1, 2, 7})
                for (float factor : {1.0f, 0.25f}) cases(count, blocks, factor);
    }
}
