// Sums over the rows of a matrix, as gradients of biases and scales need them, without atomics: a block adds up its share
// of the rows for 32 columns, and a second launch adds up the shares.
#pragma once
#include "common.cuh"

constexpr unsigned COLUMN_WARPS = 8;

// Blocks of 32 * COLUMN_WARPS threads; blockIdx.x is a group of 32 columns, blockIdx.y a share of the rows. Writes
// (gridDim.y, width). A warp reads 32 neighbours of one row at a time.
template <typename T, typename Value>
__device__ void sum_columns(size_t rows, size_t width, T* sums, Value value) {
    __shared__ float partial[COLUMN_WARPS][WARP];
    const size_t column = (size_t)blockIdx.x * WARP + lane();
    const size_t share = (rows + gridDim.y - 1) / gridDim.y;
    const size_t first = share * blockIdx.y;
    const size_t last = first + share < rows ? first + share : rows;
    float sum = 0;
    if (column < width)
        for (size_t row = first + warp(); row < last; row += COLUMN_WARPS) sum += value(row, column);
    partial[warp()][lane()] = sum;
    __syncthreads();
    if (warp() != 0 || column >= width) return;
    float total = 0;
    for (unsigned w = 0; w < COLUMN_WARPS; w++) total += partial[w][lane()];
    store(&sums[blockIdx.y * width + column], total);
}
