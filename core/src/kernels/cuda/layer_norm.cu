// Layer normalisation (Ba, Kiros and Hinton 2016) of rows, a warp each: x, weight and bias in f32, the result y in the type
// of what multiplies it, so that no pass is needed between the two.
#include "columns.cuh"

struct Moments {
    float mean, rstd;
};

// In two passes, the second and all later ones over values that are in the cache: the one-pass variance cancels.
template <unsigned N>
__device__ Moments moments_of(const float* x, size_t width, float eps) {
    float sum = 0, squares = 0, values[N];
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        load(values, x + i);
        for (unsigned k = 0; k < N; k++) sum += values[k];
    }
    const float mean = warp_sum(sum) / (float)width;
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        load(values, x + i);
        for (unsigned k = 0; k < N; k++) squares += (values[k] - mean) * (values[k] - mean);
    }
    return {mean, 1.0f / sqrtf(warp_sum(squares) / (float)width + eps)};
}

template <unsigned N, typename T>
__device__ void layer_norm(const float* x, const float* w, const float* b, T* y, size_t width, float eps) {
    const Moments m = moments_of<N>(x, width, eps);
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        float values[N], factor[N], shift[N];
        load(values, x + i);
        load(factor, w + i);
        load(shift, b + i);
        for (unsigned k = 0; k < N; k++) values[k] = (values[k] - m.mean) * m.rstd * factor[k] + shift[k];
        store(y + i, values);
    }
}

// With n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)), added to `before` unless that is null.
template <unsigned N, typename T>
__device__ void layer_norm_dx(
    const float* x, const float* w, const T* dy, const float* before, float* dx, size_t width, Moments m) {
    float g_sum = 0, gn_sum = 0, values[N], factor[N], g[N];
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        load(values, x + i);
        load(factor, w + i);
        load(g, dy + i);
        for (unsigned k = 0; k < N; k++) {
            g_sum += g[k] * factor[k];
            gn_sum += g[k] * factor[k] * (values[k] - m.mean) * m.rstd;
        }
    }
    const float g_mean = warp_sum(g_sum) / (float)width, gn_mean = warp_sum(gn_sum) / (float)width;
    for (size_t i = N * lane(); i < width; i += N * WARP) {
        load(values, x + i);
        load(factor, w + i);
        load(g, dy + i);
        for (unsigned k = 0; k < N; k++) {
            const float n = (values[k] - m.mean) * m.rstd;
            values[k] = m.rstd * (g[k] * factor[k] - g_mean - n * gn_mean);
        }
        if (before) {
            load(g, before + i);
            for (unsigned k = 0; k < N; k++) values[k] += g[k];
        }
        store(dx + i, values);
    }
}

// The gradient of x (rows, width), unless dx is null, and the moments of each row, (rows, 2), for layer_norm_dwb.
template <unsigned N, typename T>
__device__ void layer_norm_backward(const float* x, const float* w, const T* dy, const float* before, float* dx,
                                    float* moments, size_t row, size_t width, float eps) {
    const size_t from = row * width;
    const Moments m = moments_of<N>(x + from, width, eps);
    if (lane() == 0) {
        moments[2 * row] = m.mean;
        moments[2 * row + 1] = m.rstd;
    }
    if (dx) layer_norm_dx<N>(x + from, w, dy + from, before ? before + from : nullptr, dx + from, width, m);
}

// dw = sum of dy (x - mean) rstd and db = sum of dy, (2, width), as shares to be added up.
template <typename T>
__device__ void layer_norm_dwb(
    const float* x, const T* dy, const float* moments, float* shares, size_t rows, size_t width) {
    sum_columns<2>(rows, width, shares, [=]<unsigned N>(size_t row, size_t i, float (&sums)[2][N]) {
        float values[N], g[N];
        load(values, x + row * width + i);
        load(g, dy + row * width + i);
        const float mean = moments[2 * row], rstd = moments[2 * row + 1];
        for (unsigned k = 0; k < N; k++) {
            sums[0][k] += g[k] * (values[k] - mean) * rstd;
            sums[1][k] += g[k];
        }
    });
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void layer_norm_##name(                                                                    \
        const float* x, const float* w, const float* b, T* y, size_t rows, size_t width, float eps) {                \
        const size_t row = warp_row(), from = row * width;                                                           \
        if (row >= rows) return;                                                                                     \
        if (in_fours(width, x, w, b, y))                                                                             \
            layer_norm<4>(x + from, w, b, y + from, width, eps);                                                     \
        else                                                                                                         \
            layer_norm<1>(x + from, w, b, y + from, width, eps);                                                     \
    }                                                                                                                \
    extern "C" __global__ void layer_norm_dx_##name(const float* x, const float* w, const T* dy,                     \
                                                    const float* before, float* dx, float* moments, size_t rows,     \
                                                    size_t width, float eps) {                                       \
        const size_t row = warp_row();                                                                               \
        if (row >= rows) return;                                                                                     \
        if (in_fours(width, x, w, dy, before, dx))                                                                   \
            layer_norm_backward<4>(x, w, dy, before, dx, moments, row, width, eps);                                  \
        else                                                                                                         \
            layer_norm_backward<1>(x, w, dy, before, dx, moments, row, width, eps);                                  \
    }                                                                                                                \
    extern "C" __global__ void layer_norm_dwb_##name(                                                                \
        const float* x, const T* dy, const float* moments, float* shares, size_t rows, size_t width) {               \
        layer_norm_dwb(x, dy, moments, shares, rows, width);                                                         \
    }
FOR_EACH_TYPE(DEFINE)
