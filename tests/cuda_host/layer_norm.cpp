#include "check.h"
#include "layer_norm.cu"

constexpr double EPS = 1e-6;

struct Reference {
    std::vector<double> mean, rstd;
    Reference(const std::vector<float>& x, size_t rows, size_t width) : mean(rows), rstd(rows) {
        for (size_t r = 0; r < rows; r++) {
            double sum = 0, squares = 0;
            for (size_t i = 0; i < width; i++) sum += number(x[r * width + i]);
            mean[r] = sum / width;
            for (size_t i = 0; i < width; i++) squares += std::pow(number(x[r * width + i]) - mean[r], 2);
            rstd[r] = 1 / std::sqrt(squares / width + EPS);
        }
    }
};

template <typename T>
void cases(size_t rows, size_t width) {
    const size_t count = rows * width;
    const auto x = drawn<float>(count, 1), w = drawn<float>(width, 3), b = drawn<float>(width, 4);
    const auto dy = drawn<T>(count, 2);
    const Reference reference(x, rows, width);
    auto n = [&](size_t at) { return (number(x[at]) - reference.mean[at / width]) * reference.rstd[at / width]; };

    auto y = blank<T>(count);
    by_rows(rows, [&] { KERNEL(layer_norm, T)(x.data(), w.data(), b.data(), y.data(), rows, width, EPS); });
    compare("layer_norm", y, [&](size_t at) { return n(at) * number(w[at % width]) + number(b[at % width]); });

    std::vector<double> g_mean(rows), gn_mean(rows), dwb(2 * width);
    for (size_t at = 0; at < count; at++) {
        const double g = number(dy[at]) * number(w[at % width]);
        g_mean[at / width] += g / width;
        gn_mean[at / width] += g * n(at) / width;
        dwb[at % width] += number(dy[at]) * n(at);
        dwb[width + at % width] += number(dy[at]);
    }
    auto dx = blank<float>(count), moments = blank<float>(2 * rows);
    auto run = [&](const float* before, float* to) {
        by_rows(rows, [&] {
            KERNEL(layer_norm_dx, T)(x.data(), w.data(), dy.data(), before, to, moments.data(), rows, width, EPS);
        });
    };
    run(nullptr, dx.data());
    // A row of one value has no variance: 1 / sqrt(EPS) magnifies the rounding.
    const double times = width == 1 ? 1000 : 1;
    auto exact_dx = [&](size_t at) {
        const size_t r = at / width;
        return reference.rstd[r] * (number(dy[at]) * number(w[at % width]) - g_mean[r] - n(at) * gn_mean[r]);
    };
    compare("layer_norm dx", dx, exact_dx, times);
    const auto before = drawn<float>(count, 5);
    dx = blank<float>(count);
    run(before.data(), dx.data());
    compare("layer_norm dx onto another", dx, [&](size_t at) { return before[at] + exact_dx(at); }, times);
    auto exact_moments = [&](size_t at) { return at % 2 ? reference.rstd[at / 2] : reference.mean[at / 2]; };
    compare("moments", moments, exact_moments);
    moments = blank<float>(2 * rows);
    run(nullptr, nullptr);
    compare("moments alone", moments, exact_moments);
    for (size_t shares : {1, 3}) {
        auto sums = blank<float>(2 * shares * width);
        by_columns(width, shares, [&] {
            KERNEL(layer_norm_dwb, T)(x.data(), dy.data(), moments.data(), sums.data(), rows, width);
        });
        for (size_t i = 2 * width; i < sums.size(); i++) sums[i % (2 * width)] += sums[i];
        sums.resize(2 * width);
        compare("layer_norm dw and db", sums, [&](size_t i) { return dwb[i]; });
    }
}

int main() {
    in_every_type_and_order([]<typename T>() { for (const auto& [rows, width] : SIZES) cases<T>(rows, width); });
}
