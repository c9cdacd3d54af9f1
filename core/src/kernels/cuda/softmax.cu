// softmax(scale * scores) of rows, a warp each, and its gradient.
#include "common.cuh"

template <typename T>
__device__ void softmax(const T* scores, T* weights, size_t rows, size_t width, float scale) {
    const size_t row = warp_row();
    if (row >= rows) return;
    scores += row * width;
    weights += row * width;
    float largest = -INFINITY, sum = 0;
    for (size_t i = lane(); i < width; i += WARP) largest = fmaxf(largest, wide(scores[i]) * scale);
    largest = warp_max(largest);
    for (size_t i = lane(); i < width; i += WARP) sum += expf(wide(scores[i]) * scale - largest);
    const float share = 1.0f / warp_sum(sum);
    for (size_t i = lane(); i < width; i += WARP)
        store(&weights[i], expf(wide(scores[i]) * scale - largest) * share);
}

// With p the weights: dscores = scale p (dp - sum of dp p).
template <typename T>
__device__ void softmax_dx(const T* p, const T* dp, T* dscores, size_t rows, size_t width, float scale) {
    const size_t row = warp_row();
    if (row >= rows) return;
    p += row * width;
    dp += row * width;
    dscores += row * width;
    float sum = 0;
    for (size_t i = lane(); i < width; i += WARP) sum += wide(dp[i]) * wide(p[i]);
    const float dot = warp_sum(sum);
    for (size_t i = lane(); i < width; i += WARP)
        store(&dscores[i], scale * wide(p[i]) * (wide(dp[i]) - dot));
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void softmax_##name(                                                                       \
        const T* scores, T* weights, size_t rows, size_t width, float scale) {                                       \
        softmax(scores, weights, rows, width, scale);                                                                \
    }                                                                                                                \
    extern "C" __global__ void softmax_dx_##name(                                                                    \
        const T* p, const T* dp, T* dscores, size_t rows, size_t width, float scale) {                               \
        softmax_dx(p, dp, dscores, rows, width, scale);                                                              \
    }
FOR_EACH_TYPE(DEFINE)
