// What the cases of all kernels need: drawn values, launches as the program makes them, comparison with f64.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include <type_traits>

template <typename T, typename F32, typename F16, typename BF16>
auto by_type(F32 f32, F16 f16, BF16 bf16) {
    if constexpr (std::is_same_v<T, float>) return f32;
    else if constexpr (std::is_same_v<T, __half>) return f16;
    else return bf16;
}
// The variant of a kernel for a type.
#define KERNEL(name, T) by_type<T>(name##_f32, name##_f16, name##_bf16)

inline double number(float x) { return x; }
inline double number(__half x) { return __half2float(x); }
inline double number(__nv_bfloat16 x) { return __bfloat162float(x); }

// How far a stored value may be off, relative to 1 + its size: f32 by its sums, the others by half their last digit.
template <typename T>
constexpr double bound = std::is_same_v<T, float> ? 1e-5 : std::is_same_v<T, __half> ? 6e-4 : 4.5e-3;

template <typename T>
T stored(double x) {
    return by_type<T>([](float x) { return x; }, __float2half, __float2bfloat16)((float)x);
}

// Values between -2 and 2, rounded to T; exactly as many as asked for, so that a sanitizer sees each step outside.
template <typename T>
std::vector<T> drawn(size_t count, double seed) {
    std::vector<T> values(count);
    for (size_t i = 0; i < count; i++) values[i] = stored<T>(2 * std::sin((i + 0.3 + 7 * seed) * 12.9898));
    return values;
}

// Values that fail every comparison until a kernel writes them.
template <typename T>
std::vector<T> blank(size_t count) {
    return std::vector<T>(count, stored<T>(NAN));
}

template <typename T, typename Want>
void compare(const char* what, const std::vector<T>& got, Want want, double times = 1) {
    for (size_t i = 0; i < got.size(); i++) {
        const double x = number(got[i]), y = want(i);
        if (std::abs(x - y) <= times * bound<T> * (1 + std::abs(y))) continue;
        std::fprintf(stderr, "%s, value %zu of %zu in %zu bytes: %.9g instead of %.9g\n", what, i, got.size(),
                     sizeof(T), x, y);
        std::exit(1);
    }
}

// As `Grid` in core/src/kernels/cuda/mod.rs cuts the work.
inline void by_rows(size_t rows, std::function<void()> kernel) { simulator::launch((rows + 3) / 4, 1, 128, kernel); }
inline void by_columns(size_t width, size_t shares, std::function<void()> kernel) {
    const size_t columns = width % 4 == 0 ? 128 : 32;
    simulator::launch((width + columns - 1) / columns, shares, 256, kernel);
}
inline void by_blocks(size_t blocks, std::function<void()> kernel) { simulator::launch(blocks, 1, 256, kernel); }

// Rows and their widths: single values, a text tower's, and ViT-Ti, S and B; 197 tokens.
constexpr size_t SIZES[][2] = {{1, 1}, {1, 24}, {5, 24}, {197, 192}, {3, 384}, {66, 197}, {2, 768}, {7, 1000}};

template <typename Cases>
void in_every_type_and_order(Cases cases) {
    for (bool backwards : {false, true}) {
        simulator::backwards = backwards;
        cases.template operator()<float>();
        cases.template operator()<__half>();
        cases.template operator()<__nv_bfloat16>();
    }
}
