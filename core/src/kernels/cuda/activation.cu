// Activations of the MLP (Hendrycks and Gimpel 2016; Shazeer 2020), value by value.
#include "columns.cuh"

// The numbers that core/src/nn/gelu.rs uses for its kinds.
enum Kind : size_t { GELU = 0, GELU_TANH = 1, QUICK_GELU = 2 };

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

struct Value {
    float y, slope;
};

// f(x) and f'(x) of x times a gate.
__device__ inline Value activated(float x, size_t kind) {
    if (kind == GELU) {
        // The distribution function by Abramowitz and Stegun 7.1.26, as in core/src/kernels/math.rs: erfcf takes longer than
        // reading and writing the values.
        const float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * fabsf(x)), gauss = expf(-0.5f * x * x);
        const float p = (((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f;
        const float tail = 0.5f * p * t * gauss, cdf = x < 0 ? tail : 1.0f - tail;
        return {x * cdf, cdf + x * gauss * 0.39894228f};
    }
    const bool tanh = kind == GELU_TANH;
    const float s = sigmoid(tanh ? 1.59576912f * (x + 0.044715f * x * x * x) : 1.702f * x);
    const float inner = tanh ? 1.59576912f * (1.0f + 3.0f * 0.044715f * x * x) : 1.702f;
    return {x * s, s + x * s * (1.0f - s) * inner};
}

// Adds a bias, if there is one.
template <unsigned N, typename T>
__device__ inline void add(float (&x)[N], const T* bias, size_t i) {
    if (!bias) return;
    float b[N];
    load(b, bias + i);
    for (unsigned k = 0; k < N; k++) x[k] += b[k];
}

// y = f(x + bias): rows (width), and a bias (width) or null.
template <unsigned N, typename T>
__device__ void activation(const T* x, const T* bias, T* y, size_t width, size_t kind) {
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        float values[N];
        load(values, x + i);
        add(values, bias, i);
        for (unsigned k = 0; k < N; k++) values[k] = activated(values[k], kind).y;
        store(y + i, values);
    }
}

// g becomes dy f'(x + bias), of N neighbours from i on in a row.
template <unsigned N, typename T>
__device__ inline void activation_slopes(float (&g)[N], const T* x, const T* bias, const T* dy, size_t i, size_t kind) {
    float values[N];
    load(values, x + i);
    load(g, dy + i);
    add(values, bias, i);
    for (unsigned k = 0; k < N; k++) g[k] *= activated(values[k], kind).slope;
}

template <unsigned N, typename T>
__device__ void activation_dx(const T* x, const T* bias, const T* dy, T* dx, size_t width, size_t kind) {
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        float g[N];
        activation_slopes(g, x, bias, dy, i, kind);
        store(dx + i, g);
    }
}

// dx of all rows, and the gradient of the bias, which is their sum, as shares to be added up.
template <typename T>
__device__ void activation_dxb(
    const T* x, const T* bias, const T* dy, T* dx, float* shares, size_t rows, size_t width, size_t kind) {
    sum_columns<1>(rows, width, shares, [=]<unsigned N>(size_t row, size_t i, float (&sum)[1][N]) {
        float g[N];
        const size_t from = row * width;
        activation_slopes(g, x + from, bias, dy + from, i, kind);
        store(dx + from + i, g);
        for (unsigned k = 0; k < N; k++) sum[0][k] += g[k];
    });
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
    extern "C" __global__ void activation_##name(                                                                    \
        const T* x, const T* bias, T* y, size_t rows, size_t width, size_t kind) {                                   \
        const size_t row = warp_row(), from = row * width;                                                           \
        if (row >= rows) return;                                                                                     \
        if (in_fours(width, x, bias, y))                                                                             \
            activation<4>(x + from, bias, y + from, width, kind);                                                    \
        else                                                                                                         \
            activation<1>(x + from, bias, y + from, width, kind);                                                    \
    }                                                                                                                \
    extern "C" __global__ void activation_dx_##name(                                                                 \
        const T* x, const T* bias, const T* dy, T* dx, size_t rows, size_t width, size_t kind) {                     \
        const size_t row = warp_row(), from = row * width;                                                           \
        if (row >= rows) return;                                                                                     \
        if (in_fours(width, x, bias, dy, dx))                                                                        \
            activation_dx<4>(x + from, bias, dy + from, dx + from, width, kind);                                     \
        else                                                                                                         \
            activation_dx<1>(x + from, bias, dy + from, dx + from, width, kind);                                     \
    }                                                                                                                \
    extern "C" __global__ void activation_dxb_##name(const T* x, const T* bias, const T* dy, T* dx, float* shares,   \
                                                     size_t rows, size_t width, size_t kind) {                       \
        activation_dxb(x, bias, dy, dx, shares, rows, width, kind);                                                  \
    }                                                                                                                \
    extern "C" __global__ void swiglu_##name(const T* packed, T* y, size_t rows, size_t half) {                      \
        swiglu(packed, y, rows, half);                                                                               \
    }                                                                                                                \
    extern "C" __global__ void swiglu_dx_##name(const T* packed, const T* dy, T* dx, size_t rows, size_t half) {     \
        swiglu_dx(packed, dy, dx, rows, half);                                                                       \
    }
FOR_EACH_TYPE(DEFINE)
