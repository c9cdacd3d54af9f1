// Layer normalisation (Ba, Kiros and Hinton 2016) of rows, a warp each.
#include "columns.cuh"

struct Moments {
    float mean, rstd;
};

// In two passes: the one-pass variance cancels.
template <typename T>
__device__ Moments moments_of(const T* x, size_t width, float eps) {
    float sum = 0, squares = 0;
    for (size_t i = lane(); i < width; i += WARP) sum += wide(x[i]);
    const float mean = warp_sum(sum) / (float)width;
    for (size_t i = lane(); i < width; i += WARP) {
        const float centred = wide(x[i]) - mean;
        squares += centred * centred;
    }
    return {mean, 1.0f / sqrtf(warp_sum(squares) / (float)width + eps)};
}

template <typename T>
__device__ void layer_norm(const T* x, const T* w, const T* b, T* y, size_t rows, size_t width, float eps) {
    const size_t row = warp_row();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    const Moments m = moments_of(x, width, eps);
    for (size_t i = lane(); i < width; i += WARP)
        store(&y[i], (wide(x[i]) - m.mean) * m.rstd * wide(w[i]) + wide(b[i]));
}

// Mean and reciprocal standard deviation of each row, (rows, 2).
template <typename T>
__device__ void layer_norm_moments(const T* x, float* moments, size_t rows, size_t width, float eps) {
    const size_t row = warp_row();
    if (row >= rows) return;
    const Moments m = moments_of(x + row * width, width, eps);
    if (lane() == 0) {
        moments[2 * row] = m.mean;
        moments[2 * row + 1] = m.rstd;
    }
}

// With n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)).
template <typename T>
__device__ void layer_norm_dx(
    const T* x, const T* w, const T* dy, const float* moments, T* dx, size_t rows, size_t width) {
    const size_t row = warp_row();
    if (row >= rows) return;
    x += row * width;
    dy += row * width;
    dx += row * width;
    const float mean = moments[2 * row], rstd = moments[2 * row + 1];
    float g_sum = 0, gn_sum = 0;
    for (size_t i = lane(); i < width; i += WARP) {
        const float g = wide(dy[i]) * wide(w[i]);
        g_sum += g;
        gn_sum += g * (wide(x[i]) - mean) * rstd;
    }
    const float g_mean = warp_sum(g_sum) / (float)width, gn_mean = warp_sum(gn_sum) / (float)width;
    for (size_t i = lane(); i < width; i += WARP) {
        const float n = (wide(x[i]) - mean) * rstd;
        store(&dx[i], rstd * (wide(dy[i]) * wide(w[i]) - g_mean - n * gn_mean));
    }
}

// dw = sum of dy (x - mean) rstd, as shares to be added up.
template <typename T>
__device__ void layer_norm_dw(
    const T* x, const T* dy, const float* moments, float* shares, size_t rows, size_t width) {
    sum_columns(rows, width, shares, [=](size_t row, size_t i) {
        const size_t at = row * width + i;
        return wide(dy[at]) * (wide(x[at]) - moments[2 * row]) * moments[2 * row + 1];
    });
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void layer_norm_##name(                                                                    \
        const T* x, const T* w, const T* b, T* y, size_t rows, size_t width, float eps) {                            \
        layer_norm(x, w, b, y, rows, width, eps);                                                                    \
    }                                                                                                                \
    extern "C" __global__ void layer_norm_moments_##name(                                                            \
        const T* x, float* moments, size_t rows, size_t width, float eps) {                                          \
        layer_norm_moments(x, moments, rows, width, eps);                                                            \
    }                                                                                                                \
    extern "C" __global__ void layer_norm_dx_##name(                                                                 \
        const T* x, const T* w, const T* dy, const float* moments, T* dx, size_t rows, size_t width) {               \
        layer_norm_dx(x, w, dy, moments, dx, rows, width);                                                           \
    }                                                                                                                \
    extern "C" __global__ void layer_norm_dw_##name(                                                                 \
        const T* x, const T* dy, const float* moments, float* shares, size_t rows, size_t width) {                   \
        layer_norm_dw(x, dy, moments, shares, rows, width);                                                          \
    }
FOR_EACH_TYPE(DEFINE)
