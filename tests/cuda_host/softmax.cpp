#include "check.h"
#include "softmax.cu"

template <typename T>
void cases(size_t rows, size_t width) {
    const size_t count = rows * width;
    auto scores = drawn<T>(count, 1);
    for (auto& score : scores) score = stored<T>(40 * number(score)); // far apart, as they are when training goes wrong
    const float scale = 0.125f;
    std::vector<double> weights(count), sums(rows), largest(rows, -INFINITY);
    for (size_t i = 0; i < count; i++) largest[i / width] = std::max(largest[i / width], scale * number(scores[i]));
    for (size_t i = 0; i < count; i++) {
        weights[i] = std::exp(scale * number(scores[i]) - largest[i / width]);
        sums[i / width] += weights[i];
    }
    for (size_t i = 0; i < count; i++) weights[i] /= sums[i / width];
    auto p = blank<T>(count);
    by_rows(rows, [&] { KERNEL(softmax, T)(scores.data(), p.data(), rows, width, scale); });
    compare("softmax", p, [&](size_t at) { return weights[at]; });

    const auto dp = drawn<T>(count, 2);
    std::vector<double> dots(rows);
    for (size_t i = 0; i < count; i++) dots[i / width] += number(p[i]) * number(dp[i]);
    auto dscores = blank<T>(count);
    by_rows(rows, [&] { KERNEL(softmax_dx, T)(p.data(), dp.data(), dscores.data(), rows, width, scale); });
    compare("softmax dx", dscores, [&](size_t at) {
        return scale * number(p[at]) * (number(dp[at]) - dots[at / width]);
    });
}

int main() {
    in_every_type_and_order([]<typename T>() { for (const auto& [rows, width] : SIZES) cases<T>(rows, width); });
}
