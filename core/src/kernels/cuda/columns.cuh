// Sums over the rows of a matrix, as gradients of biases and scales need them, without atomics: a block adds up its share
// of the rows for some columns, and a second launch adds up the shares.
#pragma once
#include "common.cuh"

constexpr unsigned COLUMN_WARPS = 8;

// `add(row, column, sums)` adds what N columns from `column` on have in a row to sums[SUMS][N]. Writes
// (gridDim.y, SUMS, width).
template <unsigned SUMS, unsigned N, typename Add>
__device__ void sum_columns_of(size_t rows, size_t width, float* sums, Add add) {
    constexpr unsigned COLUMNS = N * WARP;
    __shared__ float partial[COLUMN_WARPS][SUMS][COLUMNS];
    const size_t column = (size_t)blockIdx.x * COLUMNS + N * lane();
    const size_t share = (rows + gridDim.y - 1) / gridDim.y;
    const size_t first = share * blockIdx.y;
    const size_t last = first + share < rows ? first + share : rows;
    float sum[SUMS][N] = {};
    if (column < width) {
#pragma unroll 4
        for (size_t row = first + warp(); row < last; row += COLUMN_WARPS) add(row, column, sum);
    }
    for (unsigned s = 0; s < SUMS; s++)
        for (unsigned k = 0; k < N; k++) partial[warp()][s][N * lane() + k] = sum[s][k];
    __syncthreads();
    for (unsigned i = threadIdx.x; i < SUMS * COLUMNS; i += blockDim.x) {
        const size_t s = i / COLUMNS, at = (size_t)blockIdx.x * COLUMNS + i % COLUMNS;
        if (at >= width) continue;
        float total = 0;
        for (unsigned w = 0; w < COLUMN_WARPS; w++) total += partial[w][s][i % COLUMNS];
        sums[(blockIdx.y * SUMS + s) * width + at] = total;
    }
}

// Blocks of 32 * COLUMN_WARPS threads; blockIdx.y is a share of the rows, blockIdx.x a group of 32 columns, or of 128 where
// there are too few blocks for groups of 32; they must be fit for `in_fours` then.
template <unsigned SUMS, typename Add>
__device__ void sum_columns(size_t rows, size_t width, float* sums, Add add) {
    if ((size_t)gridDim.x * WARP < width)
        sum_columns_of<SUMS, 4>(rows, width, sums, add);
    else
        sum_columns_of<SUMS, 1>(rows, width, sums, add);
}
