#include "check.h"
#include "adamw.cu"

// A parameter beside another; what is drawn for it begins `offset` values into its memory.
void cases(size_t count, size_t offset, float factor) {
    const float beta1 = 0.9f, beta2 = 0.999f, keep = 0.995f, rate = 0.03f, inverse_root = 3, eps = 1e-8f;
    const auto w = drawn<float>(offset + count, 1), g = drawn<float>(offset + count, 2);
    auto m = drawn<float>(offset + 2 * count, 3);
    for (size_t i = offset + count; i < m.size(); i++) m[i] *= m[i]; // second moments are never negative
    auto first = [&](size_t i) { return beta1 * (double)m[offset + i] + (1 - (double)beta1) * factor * g[offset + i]; };
    auto second = [&](size_t i) {
        const double x = (double)factor * g[offset + i];
        return beta2 * (double)m[offset + count + i] + (1 - (double)beta2) * x * x;
    };
    auto weights = w, moments = m;
    std::vector<float> lone_weight{2}, lone_moments{0, 0}, lone_gradient{1};
    const size_t blocks = (count + BLOCK_VALUES - 1) / BLOCK_VALUES;
    const Parameter alone{lone_weight.data(), lone_moments.data(), lone_gradient.data(), 1, 0, 1, 0.5f, 1, 1};
    const Parameter middle{weights.data() + offset, moments.data() + offset, g.data() + offset, count, 1, keep, rate,
                          inverse_root, factor};
    Parameter last = alone;
    last.first_block = 1 + blocks;
    const std::vector<Parameter> table{alone, middle, last};
    by_blocks(2 + blocks, [&] { adamw_f32(table.data(), table.size(), beta1, beta2, eps); });
    moments.erase(moments.begin(), moments.begin() + offset);
    weights.erase(weights.begin(), weights.begin() + offset);
    compare("moments", moments, [&](size_t i) { return i < count ? first(i) : second(i - count); });
    compare("weights", weights, [&](size_t i) {
        return keep * (double)w[offset + i] - rate * first(i) / (std::sqrt(second(i)) * inverse_root + eps);
    });
    // Two updates of the one value, by the first and the last row.
    double weight = 2, m1 = 0, m2 = 0;
    for (int step = 0; step < 2; step++) {
        m1 = beta1 * m1 + (1 - (double)beta1), m2 = beta2 * m2 + (1 - (double)beta2);
        weight -= 0.5 * m1 / (std::sqrt(m2) + eps);
    }
    compare("a parameter of one value", lone_weight, [&](size_t) { return weight; });
}

int main() {
    for (bool backwards : {false, true}) {
        simulator::backwards = backwards;
        for (size_t count : {1, 24, 255, 1000, 4096, 4097, 3 * 4096 + 8})
            for (size_t offset : {0, 1})
                for (float factor : {1.0f, 0.25f}) cases(count, offset, factor);
    }
}
