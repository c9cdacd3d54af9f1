// What all kernels share: storage in three types, arithmetic in f32, and rows that belong to one warp each.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr unsigned WARP = 32;

__device__ inline float wide(float x) { return x; }
__device__ inline float wide(__half x) { return __half2float(x); }
__device__ inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rounds to the nearest value of the storage.
__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(__half* to, float x) { *to = __float2half(x); }
__device__ inline void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16(x); }

__device__ inline unsigned lane() { return threadIdx.x % WARP; }
__device__ inline unsigned warp() { return threadIdx.x / WARP; }

// The row of this warp. All lanes of a warp leave together when there is none, so that shuffles stay whole.
__device__ inline size_t warp_row() { return (size_t)blockIdx.x * (blockDim.x / WARP) + warp(); }

// In a butterfly every lane ends with the same bits, and their order of addition is fixed.
__device__ inline float warp_sum(float x) {
    for (unsigned offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

__device__ inline float warp_max(float x) {
    for (unsigned offset = WARP / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// Neighbouring values that one lane reads or writes at once.
template <typename T, unsigned N>
struct alignas(N * sizeof(T)) Piece {
    T values[N];
};

template <unsigned N, typename T>
__device__ inline void load(float (&to)[N], const T* from) {
    const auto piece = *reinterpret_cast<const Piece<T, N>*>(from);
#pragma unroll
    for (unsigned k = 0; k < N; k++) to[k] = wide(piece.values[k]);
}

template <unsigned N, typename T>
__device__ inline void store(T* to, const float (&x)[N]) {
    Piece<T, N> piece;
#pragma unroll
    for (unsigned k = 0; k < N; k++) store(&piece.values[k], x[k]);
    *reinterpret_cast<Piece<T, N>*>(to) = piece;
}

// Whether rows of these values can be read and written in pieces of four; null pointers can.
template <typename... Pointers>
__device__ inline bool in_fours(size_t width, const Pointers*... pointers) {
    return width % 4 == 0 && ((... | (size_t)pointers) % 16) == 0;
}

// Defines a kernel for each type, under names with the suffixes that the launch layer appends.
#define FOR_EACH_TYPE(DEFINE) DEFINE(f32, float) DEFINE(f16, __half) DEFINE(bf16, __nv_bfloat16)
