// Images as bytes to the values that a model reads: a thread for each pixel, so that each channel is written in order.

// bytes (n, plane, 3) to values (n, 3, plane): (byte / 255 - mean) / std, with the CPU's bits. There are `count` = n plane
// pixels.
extern "C" __global__ void normalize_f32(const unsigned char* bytes, float* values, size_t count, size_t plane, float mean0,
                                         float mean1, float mean2, float std0, float std1, float std2) {
    const size_t pixel = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= count) return;
    const unsigned char* from = bytes + 3 * pixel;
    float* to = values + pixel / plane * 3 * plane + pixel % plane;
    to[0] = (from[0] / 255.0f - mean0) / std0;
    to[plane] = (from[1] / 255.0f - mean1) / std1;
    to[2 * plane] = (from[2] / 255.0f - mean2) / std2;
}
