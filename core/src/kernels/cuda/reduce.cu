// Sums of squares without atomics: each block leaves the sum of its values, and whoever reads the sums adds them up.
#include "tensors.cuh"

constexpr unsigned REDUCE_WARPS = 8;

struct Values {
    const float* x;
    size_t count, first_block;
};

template <unsigned N>
__device__ float square_sum(const Values& values) {
    float sum = 0;
    for_values<N>(values, [&](size_t i) {
        float x[N];
        load(x, values.x + i);
        for (unsigned k = 0; k < N; k++) sum += x[k] * x[k];
    });
    return sum;
}

// Blocks of 32 * REDUCE_WARPS threads; each writes its place of `sums`.
extern "C" __global__ void square_sums_f32(const Values* tensors, size_t many, float* sums) {
    __shared__ float partial[REDUCE_WARPS];
    const Values values = tensor_of_block(tensors, many);
    const float sum = warp_sum(in_fours(values.count, values.x) ? square_sum<4>(values) : square_sum<1>(values));
    if (lane() == 0) partial[warp()] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float total = 0;
    for (unsigned w = 0; w < REDUCE_WARPS; w++) total += partial[w];
    sums[blockIdx.x] = total;
}
