// The end of a residual branch: x + factor[sample] gamma branch in one pass, a warp for each row. The stream x is f32, the
// branch has the type of the products.
#include "columns.cuh"

// Null means factors of 1.
__device__ inline float at(const float* factors, size_t i) { return factors ? factors[i] : 1.0f; }

// gamma (width) and factors (rows / tokens) may be null.
template <typename T>
__device__ void residual(const float* x, const T* branch, const float* gamma, const float* factors, float* y,
                         size_t rows, size_t width, size_t tokens) {
    const size_t row = warp_row();
    if (row >= rows) return;
    const float factor = at(factors, row / tokens);
    for (size_t i = lane(); i < width; i += WARP) {
        const size_t here = row * width + i;
        y[here] = x[here] + wide(branch[here]) * at(gamma, i) * factor;
    }
}

template <typename T>
__device__ void residual_dbranch(const float* dy, const float* gamma, const float* factors, T* dbranch, size_t rows,
                                 size_t width, size_t tokens) {
    const size_t row = warp_row();
    if (row >= rows) return;
    const float factor = at(factors, row / tokens);
    for (size_t i = lane(); i < width; i += WARP)
        store(&dbranch[row * width + i], dy[row * width + i] * at(gamma, i) * factor);
}

// dgamma = sum of dy factor branch, as shares to be added up.
template <typename T>
__device__ void residual_dgamma(const float* dy, const T* branch, const float* factors, float* shares, size_t rows,
                                size_t width, size_t tokens) {
    sum_columns(rows, width, shares, [=](size_t row, size_t i) {
        return dy[row * width + i] * at(factors, row / tokens) * wide(branch[row * width + i]);
    });
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void residual_##name(const float* x, const T* branch, const float* gamma,                  \
                                               const float* factors, float* y, size_t rows, size_t width,            \
                                               size_t tokens) {                                                      \
        residual(x, branch, gamma, factors, y, rows, width, tokens);                                                 \
    }                                                                                                                \
    extern "C" __global__ void residual_dbranch_##name(const float* dy, const float* gamma, const float* factors,    \
                                                       T* dbranch, size_t rows, size_t width, size_t tokens) {       \
        residual_dbranch(dy, gamma, factors, dbranch, rows, width, tokens);                                          \
    }                                                                                                                \
    extern "C" __global__ void residual_dgamma_##name(const float* dy, const T* branch, const float* factors,        \
                                                      float* shares, size_t rows, size_t width, size_t tokens) {     \
        residual_dgamma(dy, branch, factors, shares, rows, width, tokens);                                           \
    }
FOR_EACH_TYPE(DEFINE)
