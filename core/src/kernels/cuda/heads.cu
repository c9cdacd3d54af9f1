// The layouts around the products of attention: tokens hold their heads side by side, products want each head's tokens
// together. A block for each token; neighbours stay neighbours within a head.
#include "common.cuh"

// Where value i of token `token` (of all images) lies among heads of one part, (B, heads, tokens, d).
__device__ inline size_t in_heads(size_t token, size_t i, size_t tokens, size_t heads, size_t d) {
    const size_t image = token / tokens, t = token % tokens, head = i / d;
    return ((image * heads + head) * tokens + t) * d + i % d;
}

// (B, tokens, parts, heads, d) to (parts, B, heads, tokens, d); gridDim.x = B tokens.
template <typename T>
__device__ void split_heads(const T* packed, T* apart, size_t tokens, size_t parts, size_t heads, size_t d) {
    const size_t width = heads * d, token = blockIdx.x;
    for (size_t i = threadIdx.x; i < parts * width; i += blockDim.x) {
        const size_t part = i / width;
        const size_t to = part * gridDim.x * width + in_heads(token, i % width, tokens, heads, d);
        apart[to] = packed[token * parts * width + i];
    }
}

// One part, (B, heads, tokens, d), to its place in (B, tokens, parts, heads, d); gridDim.x = B tokens.
template <typename T>
__device__ void merge_heads(
    const T* apart, T* packed, size_t tokens, size_t parts, size_t part, size_t heads, size_t d) {
    const size_t width = heads * d, token = blockIdx.x;
    for (size_t i = threadIdx.x; i < width; i += blockDim.x)
        packed[(token * parts + part) * width + i] = apart[in_heads(token, i, tokens, heads, d)];
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void split_heads_##name(                                                                   \
        const T* packed, T* apart, size_t tokens, size_t parts, size_t heads, size_t d) {                            \
        split_heads(packed, apart, tokens, parts, heads, d);                                                         \
    }                                                                                                                \
    extern "C" __global__ void merge_heads_##name(                                                                   \
        const T* apart, T* packed, size_t tokens, size_t parts, size_t part, size_t heads, size_t d) {               \
        merge_heads(apart, packed, tokens, parts, part, heads, d);                                                   \
    }
FOR_EACH_TYPE(DEFINE)
