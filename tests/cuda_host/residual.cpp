#include "check.h"
#include "residual.cu"

template <typename T>
void cases(size_t rows, size_t width) {
    const size_t count = rows * width, tokens = rows > 2 ? (rows + 2) / 3 : rows;
    const auto x = drawn<float>(count, 1), dy = drawn<float>(count, 2), gamma = drawn<float>(width, 3);
    const auto branch = drawn<T>(count, 4);
    const std::vector<float> factors = {1.25f, 0, 1.25f};
    for (int present = 0; present < 4; present++) {
        const float *g = present & 1 ? gamma.data() : nullptr, *f = present & 2 ? factors.data() : nullptr;
        auto scale = [&](size_t at) { return g ? (double)gamma[at % width] : 1.0; };
        auto factor = [&](size_t at) { return f ? (double)factors[at / width / tokens] : 1.0; };
        auto y = blank<float>(count);
        by_rows(rows, [&] { KERNEL(residual, T)(x.data(), branch.data(), g, f, y.data(), rows, width, tokens); });
        compare("residual", y, [&](size_t at) { return x[at] + number(branch[at]) * scale(at) * factor(at); });

        auto dbranch = blank<T>(count);
        by_rows(rows, [&] { KERNEL(residual_dbranch, T)(dy.data(), g, f, dbranch.data(), rows, width, tokens); });
        compare("residual dbranch", dbranch, [&](size_t at) { return dy[at] * scale(at) * factor(at); });

        std::vector<double> sums(width);
        for (size_t at = 0; at < count; at++) sums[at % width] += dy[at] * factor(at) * number(branch[at]);
        auto shares = blank<float>(width);
        by_columns(width, 1, [&] {
            KERNEL(residual_dgamma, T)(dy.data(), branch.data(), f, shares.data(), rows, width, tokens);
        });
        compare("residual dgamma", shares, [&](size_t i) { return sums[i]; });
    }
}

int main() {
    in_every_type_and_order([]<typename T>() { for (const auto& [rows, width] : SIZES) cases<T>(rows, width); });
}
