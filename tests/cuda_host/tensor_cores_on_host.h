// The instructions of tensor cores, by their definitions in the PTX manual: each lane shows what it holds.
#pragma once
#include "simulator.h"
#include <cstring>

namespace simulator {

// One of the two 16-bit values of a word.
template <typename T>
float half_of(unsigned word, unsigned which) {
    const uint16_t bits = (uint16_t)(word >> (16 * which));
    T value;
    std::memcpy(&value, &bits, sizeof bits);
    return wide(value);
}

struct Operands {
    unsigned a[4], b[2];
};

struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
    bool there;
};

// Which each thread has started and not waited for.
inline std::vector<Copy> copies[1024];

} // namespace simulator

// mma.sync.aligned.m16n8k16.row.col: sums += a b.
template <typename T>
void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    using namespace simulator;
    const unsigned me = current % LANES, first = current - me;
    const Operands* held = exchange(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}) + first;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = me / 4 + i / 2 * 8, column = me % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            const unsigned of_a = held[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
            const unsigned of_b = held[column * 4 + k % 8 / 2].b[k / 8];
            sums[i] += half_of<T>(of_a, k % 2) * half_of<T>(of_b, k % 2);
        }
    }
}

// ldmatrix.sync.aligned.m8n8.x4, with .trans or without.
template <bool TRANSPOSED, typename T>
void load_matrices(unsigned (&to)[4], const T* row) {
    using namespace simulator;
    if ((uintptr_t)row % 16 != 0) fail("a row of a matrix that does not begin at a multiple of 16 bytes");
    const unsigned me = current % LANES, first = current - me;
    const T* const* rows = exchange(row) + first;
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        T both[2];
        for (unsigned i = 0; i < 2; i++) {
            const unsigned down = me / 4, across = me % 4 * 2 + i;
            both[i] = TRANSPOSED ? rows[8 * matrix + across][down] : rows[8 * matrix + down][across];
        }
        std::memcpy(&to[matrix], both, sizeof both);
    }
}

inline unsigned block() { return blockIdx.x; }

inline float power_of_two(float x) { return std::exp2(x); }

// cp.async. Where it copies to lie no numbers until the thread has waited: as what was there must not be read any more,
// and what comes not yet.
template <unsigned BYTES>
void copy_async(void* to, const void* from, bool there) {
    using namespace simulator;
    if ((uintptr_t)to % BYTES != 0 || (uintptr_t)from % BYTES != 0) fail("a copy that is not aligned");
    std::memset(to, 0xff, BYTES);
    copies[current].push_back({to, from, BYTES, there});
}

inline void wait_for_copies() {
    using namespace simulator;
    for (const Copy& copy : copies[current])
        if (copy.there) std::memcpy(copy.to, copy.from, copy.bytes);
        else std::memset(copy.to, 0, copy.bytes);
    copies[current].clear();
}
