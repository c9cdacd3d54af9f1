// One launch for many tensors: a table says which block each begins with, and every block has values of one tensor.
#pragma once
#include "common.cuh"

// As in optimizer.rs.
constexpr size_t BLOCK_VALUES = 4096;

// The row of the tensor that this block works on: the last of those that begin with it or before it.
template <typename Row>
__device__ Row tensor_of_block(const Row* rows, size_t many) {
    size_t low = 0, high = many;
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        (rows[middle].first_block <= blockIdx.x ? low : high) = middle;
    }
    return rows[low];
}

// `f(i)` for the first of every N values of the tensor that this block has; N divides their number.
template <unsigned N, typename Row, typename F>
__device__ void for_values(const Row& row, F f) {
    const size_t first = (blockIdx.x - row.first_block) * BLOCK_VALUES;
    const size_t last = first + BLOCK_VALUES < row.count ? first + BLOCK_VALUES : row.count;
    for (size_t i = first + N * threadIdx.x; i < last; i += N * blockDim.x) f(i);
}
