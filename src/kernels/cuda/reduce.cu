// Sums of squares without atomics: each block leaves the sum of its share, and who reads the shares adds them up.
#include "common.cuh"

constexpr unsigned REDUCE_WARPS = 8;

// Blocks of 32 * REDUCE_WARPS threads. Writes parts[first + blockIdx.x], so that many tensors can share one row of parts.
extern "C" __global__ void square_sums_f32(const float* x, float* parts, size_t count, size_t first) {
    __shared__ float partial[REDUCE_WARPS];
    const size_t step = (size_t)gridDim.x * blockDim.x;
    float sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) sum += x[i] * x[i];
    sum = warp_sum(sum);
    if (lane() == 0) partial[warp()] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float total = 0;
    for (unsigned w = 0; w < REDUCE_WARPS; w++) total += partial[w];
    parts[first + blockIdx.x] = total;
}
