// Adds up the time of every kernel of a program, and of every call of the driver, by name, from CUPTI's records, and
// writes it as JSON when the program ends. The driver loads this library where CUDA_INJECTION64_PATH names it; KERNEL_TIMES names the file.
//
//     g++ -O2 -shared -fPIC kernel_times.cpp -o kernel_times.so -I$CUDA/include -L$CUDA/lib64 -lcupti
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cupti.h>
#include <map>
#include <string>
#include <vector>

namespace {

struct Total {
    unsigned long long nanoseconds = 0, calls = 0;
};
std::map<std::string, Total> kernels, calls;
// When kernels ran, to say for which share of the time at least one did.
std::vector<std::pair<unsigned long long, unsigned long long>> spans;

void add(Total& total, unsigned long long nanoseconds) {
    total.nanoseconds += nanoseconds;
    total.calls++;
}

void request(uint8_t** buffer, size_t* size, size_t* records) {
    *size = 8 << 20;
    *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, *size));
    *records = 0;
}

void complete(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
    CUpti_Activity* record = nullptr;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_DRIVER) {
            const auto* call = reinterpret_cast<const CUpti_ActivityAPI*>(record);
            const char* name = nullptr;
            cuptiGetCallbackName(CUPTI_CB_DOMAIN_DRIVER_API, call->cbid, &name);
            add(calls[name ? name : "?"], call->end - call->start);
        }
        if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
        // The fields used stand at the same places in every version of this record since the fourth.
        const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel4*>(record);
        add(kernels[kernel->name], kernel->end - kernel->start);
        spans.emplace_back(kernel->start, kernel->end);
    }
    std::free(buffer);
}

void write(std::FILE* file, const char* what, const std::map<std::string, Total>& totals) {
    std::fprintf(file, ",\n\"%s\": {", what);
    const char* separator = "";
    for (const auto& [name, total] : totals) {
        // Names are C++ names, without quotes or backslashes.
        std::fprintf(file, "%s\n\"%s\": {\"ns\": %llu, \"calls\": %llu}", separator, name.c_str(), total.nanoseconds,
                     total.calls);
        separator = ",";
    }
    std::fprintf(file, "}");
}

void finish() {
    cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    const char* path = std::getenv("KERNEL_TIMES");
    std::FILE* file = path ? std::fopen(path, "w") : nullptr;
    if (!file) return;
    std::sort(spans.begin(), spans.end());
    unsigned long long busy = 0, reached = 0;
    for (const auto& [start, end] : spans) {
        if (end > reached) busy += end - std::max(start, reached);
        reached = std::max(reached, end);
    }
    const unsigned long long whole = spans.empty() ? 0 : reached - spans.front().first;
    std::fprintf(file, "{\"busy_ns\": %llu, \"whole_ns\": %llu", busy, whole);
    write(file, "kernels", kernels);
    write(file, "calls", calls);
    std::fprintf(file, "}\n");
    std::fclose(file);
}

} // namespace

extern "C" int InitializeInjection() {
    cuptiActivityRegisterCallbacks(request, complete);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_DRIVER);
    std::atexit(finish);
    return 1;
}
