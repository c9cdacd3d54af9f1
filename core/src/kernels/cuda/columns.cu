// The bias of a linear layer and its gradient.
#include "columns.cuh"

// y += bias, row by row: y (rows, width), bias (width).
template <unsigned N, typename T>
__device__ void add_bias(T* y, const T* bias, size_t width) {
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        float x[N], b[N];
        load(x, y + i);
        load(b, bias + i);
        for (unsigned k = 0; k < N; k++) x[k] += b[k];
        store(y + i, x);
    }
}

template <typename T>
__device__ void add_bias(T* y, const T* bias, size_t rows, size_t width) {
    const size_t row = warp_row();
    if (row >= rows) return;
    if (in_fours(width, y, bias))
        add_bias<4>(y + row * width, bias, width);
    else
        add_bias<1>(y + row * width, bias, width);
}

// x (rows, width) to the sums of each share of the rows, (gridDim.y, width).
template <typename T>
__device__ void column_sums(const T* x, float* sums, size_t rows, size_t width) {
    sum_columns<1>(rows, width, sums, [=]<unsigned N>(size_t row, size_t i, float (&sum)[1][N]) {
        float values[N];
        load(values, x + row * width + i);
        for (unsigned k = 0; k < N; k++) sum[0][k] += values[k];
    });
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void add_bias_##name(T* y, const T* bias, size_t rows, size_t width) {                     \
        add_bias(y, bias, rows, width);                                                                              \
    }                                                                                                                \
    extern "C" __global__ void column_sums_##name(const T* x, float* sums, size_t rows, size_t width) {              \
        column_sums(x, sums, rows, width);                                                                           \
    }
FOR_EACH_TYPE(DEFINE)
