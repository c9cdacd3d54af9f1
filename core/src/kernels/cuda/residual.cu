// The end of a residual branch: x + factor[sample] gamma branch in one pass, a warp for each row. The stream x is f32, the
// branch has the type of the products.
#include "columns.cuh"

// Null means factors of 1.
__device__ inline float at(const float* factors, size_t i) { return factors ? factors[i] : 1.0f; }

// What a branch's values count for: gamma (width) and factors (rows / tokens) may be null.
template <unsigned N>
__device__ inline void scale_of(float (&scale)[N], const float* gamma, size_t i, float factor) {
    for (unsigned k = 0; k < N; k++) scale[k] = at(gamma, i + k) * factor;
}

template <unsigned N, typename T>
__device__ void residual(const float* x, const T* branch, const float* gamma, float factor, float* y, size_t width) {
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        float sum[N], values[N], scale[N];
        load(sum, x + i);
        load(values, branch + i);
        scale_of(scale, gamma, i, factor);
        for (unsigned k = 0; k < N; k++) sum[k] += values[k] * scale[k];
        store(y + i, sum);
    }
}

template <unsigned N, typename T>
__device__ void residual_dbranch(const float* dy, const float* gamma, float factor, T* dbranch, size_t width) {
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        float values[N], scale[N];
        load(values, dy + i);
        scale_of(scale, gamma, i, factor);
        for (unsigned k = 0; k < N; k++) values[k] *= scale[k];
        store(dbranch + i, values);
    }
}

// dgamma = sum of dy factor branch, as shares to be added up.
template <typename T>
__device__ void residual_dgamma(const float* dy, const T* branch, const float* factors, float* shares, size_t rows,
                                size_t width, size_t tokens) {
    sum_columns<1>(rows, width, shares, [=]<unsigned N>(size_t row, size_t i, float (&sum)[1][N]) {
        float gradient[N], values[N];
        load(gradient, dy + row * width + i);
        load(values, branch + row * width + i);
        const float factor = at(factors, row / tokens);
        for (unsigned k = 0; k < N; k++) sum[0][k] += gradient[k] * factor * values[k];
    });
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void residual_##name(const float* x, const T* branch, const float* gamma,                  \
                                               const float* factors, float* y, size_t rows, size_t width,            \
                                               size_t tokens) {                                                      \
        const size_t row = warp_row(), from = row * width;                                                           \
        if (row >= rows) return;                                                                                     \
        const float factor = at(factors, row / tokens);                                                              \
        if (in_fours(width, x, branch, y))                                                                           \
            residual<4>(x + from, branch + from, gamma, factor, y + from, width);                                    \
        else                                                                                                         \
            residual<1>(x + from, branch + from, gamma, factor, y + from, width);                                    \
    }                                                                                                                \
    extern "C" __global__ void residual_dbranch_##name(const float* dy, const float* gamma, const float* factors,    \
                                                       T* dbranch, size_t rows, size_t width, size_t tokens) {       \
        const size_t row = warp_row(), from = row * width;                                                           \
        if (row >= rows) return;                                                                                     \
        const float factor = at(factors, row / tokens);                                                              \
        if (in_fours(width, dy, dbranch))                                                                            \
            residual_dbranch<4>(dy + from, gamma, factor, dbranch + from, width);                                    \
        else                                                                                                         \
            residual_dbranch<1>(dy + from, gamma, factor, dbranch + from, width);                                    \
    }                                                                                                                \
    extern "C" __global__ void residual_dgamma_##name(const float* dy, const T* branch, const float* factors,        \
                                                      float* shares, size_t rows, size_t width, size_t tokens) {     \
        residual_dgamma(dy, branch, factors, shares, rows, width, tokens);                                           \
    }
FOR_EACH_TYPE(DEFINE)
