// AdamW's update of one parameter: gradient, moments and weights are read once, moments and weights are written once.
// weights and gradient (count); moments (2, count), the first before the second. The gradient counts `factor` times;
// inverse_root is 1 / sqrt(1 - beta2^step), keep and rate hold the learning rate, decay and the other correction.
extern "C" __global__ void adamw_f32(float* weights, float* moments, const float* gradient, size_t count, float factor,
                                     float beta1, float beta2, float keep, float rate, float inverse_root, float eps) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const float g = factor * gradient[i];
        const float first = beta1 * moments[i] + (1.0f - beta1) * g;
        const float second = beta2 * moments[count + i] + (1.0f - beta2) * g * g;
        moments[i] = first;
        moments[count + i] = second;
        weights[i] = keep * weights[i] - rate * first / (sqrtf(second) * inverse_root + eps);
    }
}
