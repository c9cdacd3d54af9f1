// Runs CUDA kernels on the host. The threads of a block are fibers that give way only at barriers and where the lanes of a
// warp exchange values; blocks run one after another. What no GPU allows is an error: a barrier that not all threads of a
// block reach, an exchange that not all lanes of a warp take part in.
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __shared__ static // one block runs at a time
#define __launch_bounds__(...)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct Dim {
    unsigned x, y, z;
};
inline Dim threadIdx, blockIdx, blockDim, gridDim;

namespace simulator {

enum State { READY, AT_BARRIER, AT_EXCHANGE, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    unsigned exchanges;
    std::vector<char> stack;
};

constexpr unsigned LANES = 32;
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current;
inline std::function<void()> body;
// The order in which fibers run between barriers: a kernel with a barrier too few gives other results backwards.
inline bool backwards = false;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "block (%u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, current, what);
    std::exit(1);
}

inline void wait(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    swapcontext(&fiber.context, &scheduler);
}

inline void enter() {
    body();
    fibers[current].state = DONE;
}

inline bool all(unsigned from, unsigned to, State state) {
    for (unsigned i = from; i < to; i++)
        if (fibers[i].state != state) return false;
    return true;
}

// Lets go on who has arrived together; false when nobody can.
inline bool release(unsigned threads) {
    bool released = false;
    auto pass = [&](unsigned from, unsigned to, State at) {
        if (!all(from, to, at)) return;
        for (unsigned i = from; i < to; i++) fibers[i].state = READY;
        released = true;
    };
    for (unsigned warp = 0; warp < threads; warp += LANES) pass(warp, warp + LANES, AT_EXCHANGE);
    pass(0, threads, AT_BARRIER);
    return released;
}

inline void run_block(unsigned threads) {
    fibers.resize(threads);
    for (Fiber& fiber : fibers) {
        fiber.stack.resize(1 << 16);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        fiber.state = READY;
        fiber.exchanges = 0;
        makecontext(&fiber.context, enter, 0);
    }
    do {
        for (unsigned i = 0; i < threads; i++) {
            current = backwards ? threads - 1 - i : i;
            if (fibers[current].state != READY) continue;
            threadIdx.x = current;
            swapcontext(&scheduler, &fibers[current].context);
        }
    } while (release(threads));
    if (!all(0, threads, DONE)) fail("threads wait for others that never come");
}

// Runs `kernel`, a call with its arguments, for each thread; `threads` is a multiple of 32.
inline void launch(unsigned columns, unsigned rows, unsigned threads, std::function<void()> kernel) {
    body = std::move(kernel);
    gridDim = {columns, rows, 1};
    blockDim = {threads, 1, 1};
    for (blockIdx.y = 0; blockIdx.y < rows; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < columns; blockIdx.x++) run_block(threads);
}

// Shows a value to the other lanes of the warp: what each of the block's threads shows.
template <typename X>
const X* exchange(X mine) {
    // Of two exchanges in turn each has values of its own: a fast lane may enter the next while others still read.
    static X shown[2][1024];
    X* now = shown[fibers[current].exchanges++ % 2];
    now[current] = mine;
    wait(AT_EXCHANGE);
    return now;
}

} // namespace simulator

inline void __syncthreads() { simulator::wait(simulator::AT_BARRIER); }

template <typename X>
X __shfl_xor_sync(unsigned mask, X value, unsigned other) {
    if (mask != 0xffffffffu) simulator::fail("a shuffle of part of a warp");
    const unsigned me = simulator::current;
    return simulator::exchange(value)[me ^ other];
}
