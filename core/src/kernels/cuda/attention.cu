// softmax(q kᵀ / √d) v on tensor cores without ever storing the weights, (B heads, tokens, tokens): keys are read in
// tiles, the softmax is corrected as larger scores appear (Milakov and Gimelshein 2018), and backward computes the weights
// again (Dao et al. 2022). Memory grows with the number of tokens, not with its square.
//
// q, k and v lie packed, (B, tokens, 3, heads, d) with d a multiple of 8; heads are padded with zeros to D. A block of
// four warps has 64 rows of one head of one image, each warp 16 of them; keys and queries beyond the last are left out in
// pieces of 16 or more. Backward runs twice, once for queries and once for keys and values, so that every sum has one
// owner and a fixed order.
#include "tensor_cores.cuh"

constexpr int ROWS = 64; // of a block
constexpr float LOG2_E = 1.4426950408889634f;

// Where a block works. At its end a kernel asks anew, so that nothing of it takes registers from the products.
struct Place {
    unsigned tokens, d;
    unsigned first_row; // of this warp
    unsigned head;      // of all heads of all images
    unsigned part;      // from queries to keys and from keys to values
    unsigned stride;    // between tokens in the packed values
    size_t q;           // where the head's queries begin in the packed values
    size_t y;           // where its result begins

    __device__ Place(size_t of_tokens, size_t heads, size_t of_d) : tokens(of_tokens), d(of_d) {
        const unsigned tiles = (tokens + ROWS - 1) / ROWS;
        const unsigned block = ::block();
        head = block / tiles;
        first_row = block % tiles * ROWS + 16 * warp();
        part = heads * d;
        stride = 3 * part;
        const unsigned image = head / (unsigned)heads, column = head % (unsigned)heads * d;
        y = (size_t)image * tokens * part + column;
        q = (size_t)image * tokens * stride + column;
    }

    // Whether this warp has rows. Others copy and wait with the rest of their block.
    __device__ bool works() const { return first_row < tokens; }

    // Of each half's row one value of (B heads, tokens), with the four lanes that share a row.
    __device__ void load(float (&values)[2], const float* from) const {
        for (int half = 0; half < 2; half++) {
            const unsigned row = first_row + lane() / 4 + 8 * half;
            values[half] = row < tokens ? from[(size_t)head * tokens + row] : 0;
        }
    }
    __device__ void store(float* to, const float (&values)[2]) const {
        for (int half = 0; half < 2; half++) {
            const unsigned row = first_row + lane() / 4 + 8 * half;
            if (row < tokens && lane() % 4 == 0) to[(size_t)head * tokens + row] = values[half];
        }
    }
};

// Leaves no weight to the keys from `there` on.
template <int N>
__device__ inline void mask(float (&scores)[N / 8][4], unsigned there) {
    if (there >= N) return;
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (8 * n + 2 * (lane() % 4) + i % 2 >= there) scores[n][i] = -INFINITY;
}

// The softmax of this warp's rows so far: of each half's row the largest score, in powers of two, and the sum.
struct Softmax {
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    // Takes the scores of N keys, of which the first `there` exist, and makes them weights before division; gives the
    // factor by which what was summed with the weights before has to shrink. `scale` includes the change to powers of two.
    template <int N>
    __device__ void take(float (&scores)[N / 8][4], float (&shrink)[2], unsigned there, float scale) {
        mask<N>(scores, there);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY;
#pragma unroll
            for (int n = 0; n < N / 8; n++) most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
            most = fmaxf(largest[half], quad_max(most) * scale);
            shrink[half] = power_of_two(largest[half] - most);
            sum[half] *= shrink[half];
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++)
                    sum[half] += scores[n][i] = power_of_two(scores[n][i] * scale - most);
            largest[half] = most;
        }
    }

    // To be called once, after the last key.
    __device__ void finish() {
        for (int half = 0; half < 2; half++) sum[half] = quad_sum(sum[half]);
    }

    // After that, what is to be taken from a score in powers of two so that 2 to its power is the weight.
    __device__ void log_sums(float (&of)[2]) const {
        for (int half = 0; half < 2; half++) of[half] = largest[half] + log2f(sum[half]);
    }
};

// Leaves each row's largest score plus the logarithm of its sum, to base 2, for backward, (B heads, tokens), if asked to.
template <int D, typename T>
__device__ void attention(const T* qkv, T* y, float* log_sums, size_t tokens, size_t heads, size_t d, float scale) {
    constexpr int KEYS = D <= 64 ? 64 : 32;
    alignas(16) __shared__ Row<T, D> keys[2][KEYS];
    alignas(16) __shared__ Row<T, D> values[2][KEYS];
    const Place at(tokens, heads, d);
    const T* q = qkv + at.q;
    auto copy = [&](unsigned stage, unsigned first) {
        copy_rows<KEYS, D>(keys[stage], q + at.part, at.stride, first, at.tokens, at.d);
        copy_rows<KEYS, D>(values[stage], q + 2 * at.part, at.stride, first, at.tokens, at.d);
    };
    copy(0, 0);
    const Held<D> queries(q, at.stride, at.first_row, at.tokens, at.d);
    float sums[D / 8][4] = {};
    Softmax softmax;
    in_tiles<KEYS>(at.tokens, copy, [&](unsigned stage, unsigned first) {
        if (!at.works()) return;
        with_size_of<KEYS>(at.tokens - first, [&](auto size) {
            constexpr int N = decltype(size)::value;
            float scores[N / 8][4] = {}, shrink[2];
            add_times_rows<N, D, T>(scores, queries, keys[stage]);
            softmax.take<N>(scores, shrink, at.tokens - first, scale * LOG2_E);
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) sums[n][i] *= shrink[i / 2];
            unsigned weights[N / 16][4];
            to_fragments<T, N>(weights, scores);
            add_product<N, D, T>(sums, weights, values[stage]);
        });
    });
    softmax.finish();
    const Place end(tokens, heads, d);
    if (log_sums) {
        float of_rows[2];
        softmax.log_sums(of_rows);
        end.store(log_sums, of_rows);
    }
    const float share[2] = {1 / softmax.sum[0], 1 / softmax.sum[1]};
    store_rows<D>(y + end.y, sums, share, end.part, end.first_row, end.tokens, end.d);
}

// The gradient of the queries: with p the weights, dp = dy vᵀ, ds = p (dp - Σ dy y), dq = ds k / √d. `log_sums` are what
// forward has left; for the other pass it leaves each row's Σ dy y.
template <int D, typename T>
__device__ void attention_dq(const T* qkv, const T* y, const T* dy, const float* log_sums, T* dqkv, float* dots,
                             size_t tokens, size_t heads, size_t d, float scale) {
    constexpr int KEYS = D <= 64 ? 64 : 32, STEP = 32;
    alignas(16) __shared__ Row<T, D> keys[2][KEYS];
    alignas(16) __shared__ Row<T, D> values[2][KEYS];
    const Place at(tokens, heads, d);
    const T* q = qkv + at.q;
    auto copy = [&](unsigned stage, unsigned first) {
        copy_rows<KEYS, D>(keys[stage], q + at.part, at.stride, first, at.tokens, at.d);
        copy_rows<KEYS, D>(values[stage], q + 2 * at.part, at.stride, first, at.tokens, at.d);
    };
    copy(0, 0);
    const Held<D> queries(q, at.stride, at.first_row, at.tokens, at.d);
    const Held<D> gradients(dy + at.y, at.part, at.first_row, at.tokens, at.d);
    float log_sum[2], dot[2];
    row_products<T>(dot, gradients, Held<D>(y + at.y, at.part, at.first_row, at.tokens, at.d));
    at.store(dots, dot);
    at.load(log_sum, log_sums);

    float sums[D / 8][4] = {};
    in_tiles<KEYS>(at.tokens, copy, [&](unsigned stage, unsigned first) {
        if (!at.works()) return;
#pragma unroll 1
        for (unsigned from = 0; from < KEYS && first + from < at.tokens; from += STEP)
            with_size_of<STEP>(at.tokens - first - from, [&](auto size) {
                constexpr int N = decltype(size)::value;
                float scores[N / 8][4] = {}, dweights[N / 8][4]; // less Σ dy y
#pragma unroll
                for (int n = 0; n < N / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) dweights[n][i] = -dot[i / 2];
                add_times_rows<N, D, T>(scores, queries, keys[stage] + from);
                add_times_rows<N, D, T>(dweights, gradients, values[stage] + from);
                mask<N>(scores, at.tokens - first - from);
#pragma unroll
                for (int n = 0; n < N / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float weight = power_of_two(scores[n][i] * (scale * LOG2_E) - log_sum[i / 2]);
                        scores[n][i] = weight * dweights[n][i];
                    }
                unsigned dscores[N / 16][4];
                to_fragments<T, N>(dscores, scores);
                add_product<N, D, T>(sums, dscores, keys[stage] + from);
            });
    });
    const Place end(tokens, heads, d);
    const float factor[2] = {scale, scale};
    store_rows<D>(dqkv + end.q, sums, factor, end.stride, end.first_row, end.tokens, end.d);
}

// The gradients of keys and values, dk = dsᵀ q / √d and dv = pᵀ dy: rows are keys here, and queries are read in tiles.
template <int D, typename T>
__device__ void attention_dkv(const T* qkv, const T* dy, const float* log_sums, const float* dots, T* dqkv,
                              size_t tokens, size_t heads, size_t d, float scale) {
    // So that all of it stays within the 48 kB that a block has without asking for more.
    constexpr int QUERIES = D <= 96 ? 32 : 16;
    constexpr bool HELD = D <= 64; // in registers wider heads have room for their keys only
    alignas(16) __shared__ Row<T, D> values[HELD ? 1 : ROWS];
    alignas(16) __shared__ Row<T, D> queries[2][QUERIES];
    alignas(16) __shared__ Row<T, D> gradients[2][QUERIES];
    __shared__ float log_sum[2][QUERIES], dot[2][QUERIES];
    const Place at(tokens, heads, d);
    const T* q = qkv + at.q;
    auto copy = [&](unsigned stage, unsigned first) {
        copy_rows<QUERIES, D>(queries[stage], q, at.stride, first, at.tokens, at.d);
        copy_rows<QUERIES, D>(gradients[stage], dy + at.y, at.part, first, at.tokens, at.d);
        copy_values<QUERIES>(log_sum[stage], log_sums + (size_t)at.head * at.tokens, first, at.tokens);
        copy_values<QUERIES>(dot[stage], dots + (size_t)at.head * at.tokens, first, at.tokens);
    };
    copy(0, 0);
    if constexpr (!HELD)
        copy_rows<ROWS, D>(values, q + 2 * at.part, at.stride, at.first_row - 16 * warp(), at.tokens, at.d);
    const Held<D> keys(q + at.part, at.stride, at.first_row, at.tokens, at.d);
    const Held<D> held(q + 2 * at.part, at.stride, at.first_row, at.tokens, at.d);
    auto value = [&](unsigned(&a)[4], int k) {
        if constexpr (HELD) held(a, k);
        else fragment<D, T>(a, values + 16 * warp(), k);
    };
    float dkeys[D / 8][4] = {}, dvalues[D / 8][4] = {};
    in_tiles<QUERIES>(at.tokens, copy, [&](unsigned stage, unsigned first) {
        if (!at.works()) return;
        with_size_of<QUERIES>(at.tokens - first, [&](auto size) {
            constexpr int N = decltype(size)::value;
            float weights[N / 8][4] = {}, dscores[N / 8][4];
            auto column = [](int n, int i) { return 8 * n + 2 * (lane() % 4) + i % 2; };
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) dscores[n][i] = -dot[stage][column(n, i)];
            add_times_rows<N, D, T>(weights, keys, queries[stage]);
            add_times_rows<N, D, T>(dscores, value, gradients[stage]);
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    // Queries that are not there are zeros, as are their gradients and the rest, and add nothing.
                    weights[n][i] = power_of_two(weights[n][i] * (scale * LOG2_E) - log_sum[stage][column(n, i)]);
                    dscores[n][i] *= weights[n][i];
                }
            unsigned a[N / 16][4];
            to_fragments<T, N>(a, weights);
            add_product<N, D, T>(dvalues, a, gradients[stage]);
            to_fragments<T, N>(a, dscores);
            add_product<N, D, T>(dkeys, a, queries[stage]);
        });
    });
    const Place end(tokens, heads, d);
    const float of_keys[2] = {scale, scale}, of_values[2] = {1, 1};
    T* to = dqkv + end.q + end.part;
    store_rows<D>(to, dkeys, of_keys, end.stride, end.first_row, end.tokens, end.d);
    store_rows<D>(to + end.part, dvalues, of_values, end.stride, end.first_row, end.tokens, end.d);
}

// So few registers that several blocks run on a processor at once: of narrow heads NARROW, of wide ones two.
#define BLOCK(D, NARROW) __launch_bounds__(THREADS, D <= 64 ? NARROW : 2)
#define DEFINE(D, name, T)                                                                                           \
    extern "C" __global__ void BLOCK(D, 4) attention_##D##_##name(                                                   \
        const T* qkv, T* y, float* log_sums, size_t tokens, size_t heads, size_t d, float scale) {                   \
        attention<D>(qkv, y, log_sums, tokens, heads, d, scale);                                                     \
    }                                                                                                                \
    extern "C" __global__ void BLOCK(D, 4) attention_dq_##D##_##name(                                                \
        const T* qkv, const T* y, const T* dy, const float* log_sums, T* dqkv, float* dots, size_t tokens,           \
        size_t heads, size_t d, float scale) {                                                                       \
        attention_dq<D>(qkv, y, dy, log_sums, dqkv, dots, tokens, heads, d, scale);                                  \
    }                                                                                                                \
    extern "C" __global__ void BLOCK(D, 3) attention_dkv_##D##_##name(                                               \
        const T* qkv, const T* dy, const float* log_sums, const float* dots, T* dqkv, size_t tokens, size_t heads,   \
        size_t d, float scale) {                                                                                     \
        attention_dkv<D>(qkv, dy, log_sums, dots, dqkv, tokens, heads, d, scale);                                    \
    }
#define FOR_EACH_HALF(D) DEFINE(D, f16, __half) DEFINE(D, bf16, __nv_bfloat16)
FOR_EACH_HALF(32)
FOR_EACH_HALF(64)
FOR_EACH_HALF(96)
FOR_EACH_HALF(128)
