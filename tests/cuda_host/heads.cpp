#include "check.h"
#include "heads.cu"

template <typename T>
void cases(size_t batch, size_t tokens, size_t heads, size_t d) {
    const size_t width = heads * d, part_count = batch * tokens * width;
    for (size_t parts : {1, 3}) {
        const auto packed = drawn<T>(parts * part_count, 1);
        auto apart = blank<T>(parts * part_count), again = blank<T>(parts * part_count);
        by_blocks(batch * tokens, [&] { KERNEL(split_heads, T)(packed.data(), apart.data(), tokens, parts, heads, d); });
        compare("split_heads", apart, [&](size_t at) { // (parts, batch, heads, tokens, d)
            const size_t i = at % d, t = at / d % tokens, h = at / d / tokens % heads;
            const size_t b = at / d / tokens / heads % batch, part = at / part_count;
            return number(packed[(((b * tokens + t) * parts + part) * heads + h) * d + i]);
        });
        for (size_t part = 0; part < parts; part++)
            by_blocks(batch * tokens, [&] {
                KERNEL(merge_heads, T)(&apart[part * part_count], again.data(), tokens, parts, part, heads, d);
            });
        compare("merge_heads", again, [&](size_t at) { return number(packed[at]); });
    }
}

int main() {
    in_every_type_and_order([]<typename T>() {
        cases<T>(1, 1, 1, 1);
        cases<T>(3, 5, 2, 24);
        cases<T>(2, 7, 3, 64);
        cases<T>(1, 197, 6, 64);
    });
}
