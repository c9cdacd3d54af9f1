// Activations of the MLP (Hendrycks and Gimpel 2016; Shazeer 2020), value by value.
#include "common.cuh"

// The numbers that src/nn/gelu.rs uses for its kinds.
enum Kind { GELU = 0, GELU_TANH = 1, QUICK_GELU = 2 };

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

struct Value {
    float y, slope;
};

// f(x) and f'(x) of x times a gate.
__device__ inline Value activated(float x, int kind) {
    if (kind == GELU) {
        const float cdf = 0.5f * erfcf(-x * 0.70710678f);
        return {x * cdf, cdf + x * expf(-0.5f * x * x) * 0.39894228f};
    }
    const bool tanh = kind == GELU_TANH;
    const float s = sigmoid(tanh ? 1.59576912f * (x + 0.044715f * x * x * x) : 1.702f * x);
    const float inner = tanh ? 1.59576912f * (1.0f + 3.0f * 0.044715f * x * x) : 1.702f;
    return {x * s, s + x * s * (1.0f - s) * inner};
}

__device__ inline size_t first() { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline size_t stride() { return (size_t)gridDim.x * blockDim.x; }

template <typename T>
__device__ void activation(const T* x, T* y, size_t count, int kind) {
    for (size_t i = first(); i < count; i += stride()) store(&y[i], activated(wide(x[i]), kind).y);
}

template <typename T>
__device__ void activation_dx(const T* x, const T* dy, T* dx, size_t count, int kind) {
    for (size_t i = first(); i < count; i += stride()) store(&dx[i], wide(dy[i]) * activated(wide(x[i]), kind).slope);
}

// silu(gate) value: rows (2 half), the gate first, to rows (half); a warp for each row.
template <typename T>
__device__ void swiglu(const T* packed, T* y, size_t rows, size_t half) {
    const size_t row = warp_row();
    if (row >= rows) return;
    const T *gate = packed + 2 * row * half, *value = gate + half;
    for (size_t i = lane(); i < half; i += WARP) {
        const float g = wide(gate[i]);
        store(&y[row * half + i], g * sigmoid(g) * wide(value[i]));
    }
}

// With s = sigmoid(gate): dvalue = dy gate s, dgate = dy value s (1 + gate (1 - s)).
template <typename T>
__device__ void swiglu_dx(const T* packed, const T* dy, T* dx, size_t rows, size_t half) {
    const size_t row = warp_row();
    if (row >= rows) return;
    const T *gate = packed + 2 * row * half, *value = gate + half;
    dx += 2 * row * half;
    for (size_t i = lane(); i < half; i += WARP) {
        const float g = wide(gate[i]), s = sigmoid(g), d = wide(dy[row * half + i]);
        store(&dx[i], d * wide(value[i]) * s * (1.0f + g * (1.0f - s)));
        store(&dx[half + i], d * g * s);
    }
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void activation_##name(const T* x, T* y, size_t count, size_t kind) {                      \
        activation(x, y, count, (int)kind);                                                                          \
    }                                                                                                                \
    extern "C" __global__ void activation_dx_##name(const T* x, const T* dy, T* dx, size_t count, size_t kind) {     \
        activation_dx(x, dy, dx, count, (int)kind);                                                                  \
    }                                                                                                                \
    extern "C" __global__ void swiglu_##name(const T* packed, T* y, size_t rows, size_t half) {                      \
        swiglu(packed, y, rows, half);                                                                               \
    }                                                                                                                \
    extern "C" __global__ void swiglu_dx_##name(const T* packed, const T* dy, T* dx, size_t rows, size_t half) {     \
        swiglu_dx(packed, dy, dx, rows, half);                                                                       \
    }
FOR_EACH_TYPE(DEFINE)
