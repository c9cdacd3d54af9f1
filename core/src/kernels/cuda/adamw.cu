// AdamW's update of all parameters at once: gradient, moments and weights are read once, moments and weights are written
// once.
#include "tensors.cuh"

// weights and gradient (count); moments (2, count), the first before the second. inverse_root is 1 / sqrt(1 - beta2^step),
// keep and rate hold the learning rate, decay and the other correction; the gradient counts `factor` times.
struct Parameter {
    float *weights, *moments;
    const float* gradient;
    size_t count, first_block;
    float keep, rate, inverse_root, factor;
};

template <unsigned N>
__device__ void adamw(const Parameter& p, float beta1, float beta2, float eps) {
    for_values<N>(p, [&](size_t i) {
        float g[N], first[N], second[N], w[N];
        load(g, p.gradient + i);
        load(first, p.moments + i);
        load(second, p.moments + p.count + i);
        load(w, p.weights + i);
        for (unsigned k = 0; k < N; k++) {
            g[k] *= p.factor;
            first[k] = beta1 * first[k] + (1.0f - beta1) * g[k];
            second[k] = beta2 * second[k] + (1.0f - beta2) * g[k] * g[k];
            w[k] = p.keep * w[k] - p.rate * first[k] / (sqrtf(second[k]) * p.inverse_root + eps);
        }
        store(p.moments + i, first);
        store(p.moments + p.count + i, second);
        store(p.weights + i, w);
    });
}

// Blocks of 256 threads.
extern "C" __global__ void adamw_f32(const Parameter* parameters, size_t many, float beta1, float beta2, float eps) {
    const Parameter p = tensor_of_block(parameters, many);
    if (in_fours(p.count, p.weights, p.moments, p.gradient))
        adamw<4>(p, beta1, beta2, eps);
    else
        adamw<1>(p, beta1, beta2, eps);
}
