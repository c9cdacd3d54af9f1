#include "check.h"
#include "columns.cu"

template <typename T>
void cases(size_t rows, size_t width) {
    const auto x = drawn<T>(rows * width, 1), bias = drawn<T>(width, 2);
    auto y = x;
    by_rows(rows, [&] { KERNEL(add_bias, T)(y.data(), bias.data(), rows, width); });
    compare("add_bias", y, [&](size_t at) { return number(x[at]) + number(bias[at % width]); });

    std::vector<double> sums(width);
    for (size_t at = 0; at < rows * width; at++) sums[at % width] += number(x[at]);
    for (size_t shares : {1, 2, 5}) {
        auto parts = blank<float>(shares * width);
        by_columns(width, shares, [&] { KERNEL(column_sums, T)(x.data(), parts.data(), rows, width); });
        auto total = blank<float>(width);
        by_columns(width, 1, [&] { column_sums_f32(parts.data(), total.data(), shares, width); });
        compare("sum of rows", total, [&](size_t i) { return sums[i]; });
    }
}

int main() {
    in_every_type_and_order([]<typename T>() { for (const auto& [rows, width] : SIZES) cases<T>(rows, width); });
}
