// The bias of a linear layer and its gradient.
#include "columns.cuh"

// y += bias, row by row: y (rows, width), bias (width).
template <typename T>
__device__ void add_bias(T* y, const T* bias, size_t rows, size_t width) {
    const size_t row = warp_row();
    if (row >= rows) return;
    y += row * width;
    for (size_t i = lane(); i < width; i += WARP) store(&y[i], wide(y[i]) + wide(bias[i]));
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void add_bias_##name(T* y, const T* bias, size_t rows, size_t width) {                     \
        add_bias(y, bias, rows, width);                                                                              \
    }                                                                                                                \
    /* x (rows, width) to the sums of each share of the rows, (gridDim.y, width). */                                 \
    extern "C" __global__ void column_shares_##name(const T* x, float* shares, size_t rows, size_t width) {          \
        sum_columns(rows, width, shares, [=](size_t row, size_t i) { return wide(x[row * width + i]); });            \
    }                                                                                                                \
    /* The shares (rows, width) to their sum (width), with gridDim.y = 1. */                                         \
    extern "C" __global__ void column_total_##name(const float* shares, T* total, size_t rows, size_t width) {       \
        sum_columns(rows, width, total, [=](size_t row, size_t i) { return shares[row * width + i]; });              \
    }
FOR_EACH_TYPE(DEFINE)
