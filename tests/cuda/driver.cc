// CUDA's driver and runtime for a machine without a GPU: as much of both as TVM's runtime calls. A package's
// PTX names the library that has its kernels, made from the same source by emulator.h.
//
// Memory of the device can be touched by kernels and copies only: host code that does so is killed. A
// kernel gets more shared memory than 48 KB only where that was asked for, as on hardware.
#include <dlfcn.h>
#include <sys/mman.h>
#include <time.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

constexpr int kInvalid = 1, kNoMemory = 2, kNotFound = 500, kUsualShared = 48 << 10, kMostShared = 227 << 10;
constexpr int kDynamicShared = 8;  // the most bytes of dynamic shared memory

using Launcher = void (*)(int blocks, int threads, long bytes, void** parameters);
struct Function { Launcher run; int most_shared; };

std::map<char*, size_t> memory;

void Protect(int how) {
  for (auto& [start, size] : memory) mprotect(start, size, how);
}
struct Access {  // of kernels and copies
  Access() { Protect(PROT_READ | PROT_WRITE); }
  ~Access() { Protect(PROT_NONE); }
};

}  // namespace

#define CUDA extern "C" int

CUDA cudaGetDeviceCount(int* count) { return *count = 1, 0; }
CUDA cudaGetDevice(int* device) { return *device = 0, 0; }
CUDA cudaSetDevice(int device) { return device ? kInvalid : 0; }
CUDA cudaGetLastError() { return 0; }
CUDA cudaPeekAtLastError() { return 0; }
extern "C" const char* cudaGetErrorName(int) { return "cudaError"; }
extern "C" const char* cudaGetErrorString(int) { return "refused by the driver of the tests"; }
CUDA cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR", 0; }
CUDA cuGetErrorString(int, const char** text) { return *text = "refused by the driver of the tests", 0; }
CUDA cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "emulated"), 0; }
CUDA cudaDeviceGetAttribute(int* value, int attribute, int) {
  static const std::map<int, int> known = {
      {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {8, kUsualShared}, {10, 32}, {12, 65536}, {13, 1000000},
      {16, 108}, {38, 40 << 20}, {75, 9}, {76, 0}, {97, kMostShared}};
  auto found = known.find(attribute);
  return *value = found == known.end() ? 0 : found->second, 0;
}
CUDA cudaGetDeviceProperties(void* properties, int) {
  constexpr size_t kTotalMemory = 288;  // the place of totalGlobalMem
  const size_t total = size_t{1} << 34;
  memset(properties, 0, kTotalMemory);
  memcpy(static_cast<char*>(properties) + kTotalMemory, &total, sizeof total);
  return 0;
}
CUDA cudaMemGetInfo(size_t* free, size_t* total) { return *free = *total = size_t{1} << 34, 0; }

CUDA cudaMalloc(void** place, size_t size) {
  size = (size + 4095) / 4096 * 4096 + 4096;
  void* made = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return kNoMemory;
  memory[static_cast<char*>(made)] = size;
  *place = made;
  return 0;
}
CUDA cudaFree(void* place) {
  auto found = memory.find(static_cast<char*>(place));
  if (found == memory.end()) return place ? kInvalid : 0;
  munmap(found->first, found->second);
  memory.erase(found);
  return 0;
}
CUDA cudaMallocHost(void** place, size_t size) { return (*place = malloc(size)) ? 0 : kNoMemory; }
CUDA cudaFreeHost(void* place) { return free(place), 0; }
CUDA cudaMemcpyAsync(void* to, const void* from, size_t size, int, void*) {
  Access access;
  return memcpy(to, from, size), 0;
}
CUDA cudaMemcpyPeerAsync(void*, int, const void*, int, size_t, void*) { return kInvalid; }

CUDA cudaStreamCreate(void** stream) { return *stream = nullptr, 0; }
CUDA cudaStreamCreateWithFlags(void** stream, unsigned) { return *stream = nullptr, 0; }
CUDA cudaStreamDestroy(void*) { return 0; }
CUDA cudaStreamSynchronize(void*) { return 0; }
CUDA cudaStreamWaitEvent(void*, void*, unsigned) { return 0; }
CUDA cudaStreamBeginCapture(void*, int) { return kInvalid; }
CUDA cudaStreamEndCapture(void*, void**) { return kInvalid; }
CUDA cudaGraphInstantiate(void**, void*, unsigned long long) { return kInvalid; }
CUDA cudaGraphLaunch(void*, void*) { return kInvalid; }
CUDA cudaGraphDestroy(void*) { return kInvalid; }
CUDA cudaGraphExecDestroy(void*) { return kInvalid; }
CUDA cuTensorMapEncodeTiled(...) { return kInvalid; }

CUDA cudaEventCreate(void** event) { return *event = new timespec(), 0; }
CUDA cudaEventDestroy(void* event) { return delete static_cast<timespec*>(event), 0; }
CUDA cudaEventRecord(void* event, void*) { return clock_gettime(CLOCK_MONOTONIC, static_cast<timespec*>(event)); }
CUDA cudaEventSynchronize(void*) { return 0; }
CUDA cudaEventElapsedTime(float* milliseconds, void* from, void* to) {
  auto *a = static_cast<timespec*>(from), *b = static_cast<timespec*>(to);
  return *milliseconds = (b->tv_sec - a->tv_sec) * 1e3f + (b->tv_nsec - a->tv_nsec) * 1e-6f, 0;
}

// The image must be PTX: TVM compiles what is labelled as source, and hands everything else over.
CUDA cuModuleLoadData(void** module, const void* image) {
  const std::string ptx = static_cast<const char*>(image), mark = "// emulated by ";
  const size_t start = ptx.find(mark) + mark.size();
  if (ptx.find(".version") == std::string::npos || start < mark.size()) return kInvalid;
  *module = dlopen(ptx.substr(start, ptx.find('\n', start) - start).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (*module == nullptr) fprintf(stderr, "%s\n", dlerror());
  return *module ? 0 : kInvalid;
}
CUDA cuModuleUnload(void*) { return 0; }
CUDA cuModuleGetFunction(void** function, void* module, const char* name) {
  auto run = reinterpret_cast<Launcher>(dlsym(module, (std::string("launch_") + name).c_str()));
  if (run == nullptr) return kNotFound;
  *function = new Function{run, kUsualShared};
  return 0;
}
CUDA cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute != kDynamicShared || value > kMostShared) return kInvalid;
  static_cast<Function*>(function)->most_shared = value;
  return 0;
}

struct LaunchConfig {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  void* attributes;
  unsigned attribute_count;
};
CUDA cuLaunchKernelEx(const LaunchConfig* config, void* function, void** parameters, void**) {
  auto* kernel = static_cast<Function*>(function);
  const unsigned *grid = config->grid, *block = config->block;
  if (grid[0] == 0 || grid[1] != 1 || grid[2] != 1 || block[0] > 1024 || block[1] != 1 || block[2] != 1 ||
      static_cast<int>(config->shared_bytes) > kernel->most_shared) {
    return kInvalid;
  }
  Access access;
  kernel->run(grid[0], block[0], config->shared_bytes, parameters);
  return 0;
}
