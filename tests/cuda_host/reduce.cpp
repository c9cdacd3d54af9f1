#include "check.h"
#include "reduce.cu"

// Tensors of so many values each; what is drawn begins `offset` values into its memory.
void cases(const std::vector<size_t>& counts, size_t offset) {
    std::vector<std::vector<float>> tensors;
    std::vector<Values> table;
    std::vector<double> want;
    size_t blocks = 0;
    for (size_t count : counts) {
        tensors.push_back(drawn<float>(offset + count, counts.size() + count));
        table.push_back({tensors.back().data() + offset, count, blocks});
        for (size_t i = 0; i < count; i++) {
            if (i % BLOCK_VALUES == 0) want.push_back(0);
            want.back() += std::pow((double)tensors.back()[offset + i], 2);
        }
        blocks = want.size();
    }
    auto sums = blank<float>(blocks);
    by_blocks(blocks, [&] { square_sums_f32(table.data(), table.size(), sums.data()); });
    compare("sum of squares", sums, [&](size_t i) { return want[i]; });
}

int main() {
    for (bool backwards : {false, true}) {
        simulator::backwards = backwards;
        for (size_t offset : {0, 1})
            for (const auto& counts : std::vector<std::vector<size_t>>{
                     {1}, {24, 255}, {4096, 1, 4097}, {3 * 4096 + 8, 1000, 2 * 4096}, {5, 6, 7, 8, 9, 10, 11}})
                cases(counts, offset);
    }
}
