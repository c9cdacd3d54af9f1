#include "check.h"
#include "normalize.cu"

// Every value of a byte in every channel, to the bit.
void cases(size_t n, size_t plane) {
    const size_t count = n * plane;
    const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 1 / 255.0f};
    std::vector<unsigned char> bytes(3 * count);
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = (unsigned char)(i * 37 + i / 256);
    auto values = blank<float>(3 * count);
    by_blocks((count + 255) / 256, [&] {
        normalize_f32(bytes.data(), values.data(), count, plane, mean[0], mean[1], mean[2], std[0], std[1], std[2]);
    });
    for (size_t i = 0; i < values.size(); i++) {
        const size_t image = i / (3 * plane), channel = i / plane % 3, pixel = i % plane;
        const float want = (bytes[(image * plane + pixel) * 3 + channel] / 255.0f - mean[channel]) / std[channel];
        if (values[i] == want) continue;
        std::fprintf(stderr, "normalize, value %zu: %.9g instead of %.9g\n", i, values[i], want);
        std::exit(1);
    }
}

int main() {
    for (size_t n : {1, 2, 5})
        for (size_t plane : {1, 9, 255, 256, 257, 28 * 28}) cases(n, plane);
}
