#include "check.h"
#include "reduce.cu"

void cases(size_t count, size_t blocks, size_t first) {
    const auto x = drawn<float>(count, 1);
    auto parts = blank<float>(first + blocks + 2);
    by_blocks(blocks, [&] { square_sums_f32(x.data(), parts.data(), count, first); });
    double want = 0, got = 0;
    for (float value : x) want += (double)value * value;
    for (size_t i = 0; i < blocks; i++) got += parts[first + i];
    compare("sum of squares", std::vector<float>{(float)got}, [&](size_t) { return want; });
    for (size_t i = 0; i < parts.size(); i++)
        if (std::isnan(parts[i]) == (i >= first && i < first + blocks)) {
            std::fprintf(stderr, "part %zu of %zu: written where it should not be, or not where it should\n", i, blocks);
            std::exit(1);
        }
}

int main() {
    for (bool backwards : {false, true}) {
        simulator::backwards = backwards;
        for (size_t count : {1, 24, 255, 256, 257, 1000, 3 * 192 * 5})
            for (size_t blocks : {1, 2, 7})
                for (size_t first : {0, 3}) cases(count, blocks, first);
    }
}
