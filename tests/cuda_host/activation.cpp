#include "check.h"
#include "activation.cu"

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

// The value and the derivative by their formulas.
std::pair<double, double> expected(double x, int kind) {
    const double pi = std::acos(-1.0);
    if (kind == GELU) {
        const double cdf = 0.5 * (1 + std::erf(x / std::sqrt(2.0)));
        return {x * cdf, cdf + x * std::exp(-x * x / 2) / std::sqrt(2 * pi)};
    }
    if (kind == GELU_TANH) {
        const double c = std::sqrt(2 / pi), t = std::tanh(c * (x + 0.044715 * x * x * x));
        return {0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)};
    }
    const double s = logistic(1.702 * x);
    return {x * s, s + 1.702 * x * s * (1 - s)};
}

template <typename T>
void cases(size_t rows, size_t width) {
    const size_t count = rows * width;
    auto x = drawn<T>(count, 1);
    const auto dy = drawn<T>(count, 2), bias = drawn<T>(width, 5);
    // The tails too: 4 times as wide, and far outside.
    for (auto& value : x) value = stored<T>(4 * number(value));
    x[0] = stored<T>(-90);
    for (int kind : {GELU, GELU_TANH, QUICK_GELU}) {
        for (const T* b : {(const T*)nullptr, bias.data()}) {
            auto at_bias = [&](size_t at) { return number(x[at]) + (b ? number(b[at % width]) : 0); };
            auto exact_dx = [&](size_t at) { return number(dy[at]) * expected(at_bias(at), kind).second; };
            auto y = blank<T>(count), dx = blank<T>(count);
            by_rows(rows, [&] { KERNEL(activation, T)(x.data(), b, y.data(), rows, width, kind); });
            compare("activation", y, [&](size_t at) { return expected(at_bias(at), kind).first; });
            by_rows(rows, [&] { KERNEL(activation_dx, T)(x.data(), b, dy.data(), dx.data(), rows, width, kind); });
            compare("activation dx", dx, exact_dx);

            std::vector<double> sums(width);
            for (size_t at = 0; at < count; at++) sums[at % width] += exact_dx(at);
            for (size_t shares : {1, 3}) {
                dx = blank<T>(count);
                auto parts = blank<float>(shares * width);
                by_columns(width, shares, [&] {
                    KERNEL(activation_dxb, T)(
                        x.data(), b, dy.data(), dx.data(), parts.data(), rows, width, kind);
                });
                compare("activation dx with sums", dx, exact_dx);
                for (size_t i = width; i < parts.size(); i++) parts[i % width] += parts[i];
                parts.resize(width);
                compare("sums of activation dx", parts, [&](size_t i) { return sums[i]; });
            }
        }
    }
    const auto packed = drawn<T>(2 * count, 3);
    auto gate = [&](size_t at) { return number(packed[at / width * 2 * width + at % width]); };
    auto value = [&](size_t at) { return number(packed[at / width * 2 * width + width + at % width]); };
    auto y = blank<T>(count), dx = blank<T>(2 * count);
    by_rows(rows, [&] { KERNEL(swiglu, T)(packed.data(), y.data(), rows, width); });
    compare("swiglu", y, [&](size_t at) { return gate(at) * logistic(gate(at)) * value(at); });
    by_rows(rows, [&] { KERNEL(swiglu_dx, T)(packed.data(), dy.data(), dx.data(), rows, width); });
    compare("swiglu dx", dx, [&](size_t at) {
        const size_t row = at / (2 * width), i = at % (2 * width), from = row * width + i % width;
        const double g = gate(from), s = logistic(g);
        return number(dy[from]) * (i < width ? value(from) * s * (1 + g * (1 - s)) : g * s);
    });
}

int main() {
    in_every_type_and_order([]<typename T>() { for (const auto& [rows, width] : SIZES) cases<T>(rows, width); });
}
