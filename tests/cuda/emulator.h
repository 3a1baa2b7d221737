// A GPU's block of threads on a CPU: threads are fibers, which change at barriers and where a warp acts as
// one. It has the functions of tvm_qat/kernels/cuda/device/primitives.cuh, and stops on what hardware would
// not forgive: misaligned or foreign shared memory, a barrier that some threads miss.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#define QAT_DEVICE static inline
#define QAT_DEVICE_MEMBER inline
#define __restrict__
#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN
using std::max;
using std::min;
using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using half = _Float16;
#define __float2half_rn(x) static_cast<half>(x)
#define __habs(x) static_cast<half>(fabsf(x))
struct nv_bfloat16 {
  uint16_t bits;
  nv_bfloat16() = default;
  explicit nv_bfloat16(float x) {
    uint32_t whole;
    memcpy(&whole, &x, 4);
    bits = x != x ? 0x7fff : (whole + 0x7fff + (whole >> 16 & 1)) >> 16;  // half to even
  }
  operator float() const {
    uint32_t whole = static_cast<uint32_t>(bits) << 16;
    float x;
    memcpy(&x, &whole, 4);
    return x;
  }
};

struct Copy { void* to; const void* from; int bytes; bool inside; };
enum State { kRuns, kAtBarrier, kAtWarp, kDone };
struct Fiber {
  ucontext_t context;
  int x;
  State state;
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> open;
};
struct Index { int x, y, z; };

static std::vector<Fiber*> fibers;
static Fiber* current;
static ucontext_t scheduler;
static Index blockIdx;
static unsigned char* shared_memory;
static size_t shared_bytes;
static bool copies_early;
static void (*kernel)();
static uint32_t exchanged[64][32][6];

#define threadIdx (Index{current->x, 0, 0})

[[noreturn]] static void fail(const char* what) { fprintf(stderr, "%s\n", what); exit(3); }

static void leave(State state) {
  current->state = state;
  swapcontext(&current->context, &scheduler);
}
static void entry() {
  kernel();
  leave(kDone);
}
static int lane() { return current->x % 32; }
static int warp() { return current->x / 32; }

static void check_shared(const void* at, int bytes) {
  const unsigned char* p = static_cast<const unsigned char*>(at);
  if (p < shared_memory || p + bytes > shared_memory + shared_bytes) fail("outside of shared memory");
  if (reinterpret_cast<uintptr_t>(p) % bytes) fail("misaligned in shared memory");
}
static void do_copy(const Copy& copy) {
  if (copy.inside) memcpy(copy.to, copy.from, copy.bytes);
  else memset(copy.to, 0, copy.bytes);
}

QAT_DEVICE float qat_fence(float x) { return x; }
QAT_DEVICE double qat_fence(double x) { return x; }
QAT_DEVICE float qat_multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
QAT_DEVICE int qat_nearest(float x) {
  double whole = nearbyint(static_cast<double>(x));
  return x != x ? 0 : whole >= 2147483647.0 ? 2147483647 : whole <= -2147483648.0 ? INT32_MIN : static_cast<int>(whole);
}
QAT_DEVICE float qat_square_root(float x) { return sqrtf(x); }
template <class To, class From> To bits_of(From x) { To y; memcpy(&y, &x, sizeof y); return y; }
QAT_DEVICE int qat_bits_int(float x) { return bits_of<int>(x); }
QAT_DEVICE float qat_bits_float(int x) { return bits_of<float>(x); }
QAT_DEVICE long long qat_bits_long(double x) { return bits_of<long long>(x); }
QAT_DEVICE double qat_bits_double(long long x) { return bits_of<double>(x); }
QAT_DEVICE float __int_as_float(int x) { return bits_of<float>(x); }

QAT_DEVICE void qat_barrier() { leave(kAtBarrier); }
QAT_DEVICE void __syncthreads() { leave(kAtBarrier); }
QAT_DEVICE int qat_thread() { return current->x; }

template <class T>
QAT_DEVICE T of_lane(T x, int from) {
  exchanged[warp()][lane()][0] = bits_of<uint32_t>(x);
  leave(kAtWarp);
  T found = bits_of<T>(exchanged[warp()][from][0]);
  leave(kAtWarp);
  return found;
}
template <class T> QAT_DEVICE T qat_swapped(T x, int bits) { return of_lane(x, lane() ^ bits); }
template <class T> QAT_DEVICE T qat_from_lane(T x, int from) { return of_lane(x, from); }

template <int kBytes>
QAT_DEVICE void qat_copy(void* to, const void* from, bool inside) {
  check_shared(to, kBytes);
  if (reinterpret_cast<uintptr_t>(from) % kBytes) fail("misaligned copy");
  Copy copy{to, from, kBytes, inside};
  if (copies_early) do_copy(copy);
  else current->open.push_back(copy);
}
QAT_DEVICE void qat_commit() {
  current->groups.push_back(current->open);
  current->open.clear();
}
template <int kPending>
QAT_DEVICE void qat_wait() {
  for (; current->groups.size() > kPending; current->groups.pop_front())
    for (const Copy& copy : current->groups.front()) do_copy(copy);
}

QAT_DEVICE void qat_load_matrices(unsigned (&r)[4], const void* row) {
  static const unsigned char* rows[64][32];
  check_shared(row, 16);
  rows[warp()][lane()] = static_cast<const unsigned char*>(row);
  leave(kAtWarp);
  for (int i = 0; i < 4; i++) memcpy(&r[i], rows[warp()][8 * i + lane() / 4] + lane() % 4 * 4, 4);
  leave(kAtWarp);
}

template <class Left, class Right>
QAT_DEVICE void qat_mma(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Left, Right) {
  uint32_t* own = exchanged[warp()][lane()];
  for (int i = 0; i < 4; i++) own[i] = a[i];
  own[4] = b0;
  own[5] = b1;
  leave(kAtWarp);
  for (int x = 0; x < 4; x++) {
    int row = lane() / 4 + x / 2 * 8, column = lane() % 4 * 2 + x % 2;
    uint32_t sum = static_cast<uint32_t>(c[x]);
    for (int k = 0; k < 32; k++) {  // of row r: lane r % 8 * 4 + k % 16 / 4, register r / 8 + k / 16 * 2, byte k % 4
      uint32_t left = exchanged[warp()][row % 8 * 4 + k % 16 / 4][row / 8 + k / 16 * 2] >> (8 * (k % 4));
      uint32_t right = exchanged[warp()][column * 4 + k % 16 / 4][4 + k / 16] >> (8 * (k % 4));
      sum += static_cast<uint32_t>(static_cast<int>(static_cast<Left>(left)) * static_cast<int>(static_cast<Right>(right)));
    }
    c[x] = static_cast<int>(sum);
  }
  leave(kAtWarp);
}

template <int kBytes>
QAT_DEVICE void qat_read(unsigned* to, const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % kBytes) fail("misaligned read");
  memcpy(to, from, kBytes);
}
QAT_DEVICE void qat_read_shared(unsigned (&to)[4], const void* from) {
  check_shared(from, 16);
  memcpy(to, from, 16);
}
QAT_DEVICE void qat_write_shared(void* to, const int* from) {
  check_shared(to, 16);
  memcpy(to, from, 16);
}
template <int kWords>
QAT_DEVICE void qat_write(int* to, const int* from) {
  if (reinterpret_cast<uintptr_t>(to) % (4 * kWords)) fail("misaligned write");
  memcpy(to, from, 4 * kWords);
}

template <class Left, class Right>
QAT_DEVICE int qat_dot4(unsigned a, unsigned b, int acc, Left, Right) {
  for (int i = 0; i < 4; i++) acc += static_cast<int>(static_cast<Left>(a >> (8 * i))) * static_cast<int>(static_cast<Right>(b >> (8 * i)));
  return acc;
}
QAT_DEVICE unsigned qat_permute(unsigned a, unsigned b, unsigned order) {
  uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= static_cast<unsigned>(both >> (8 * (order >> (4 * i) & 7)) & 255) << (8 * i);
  return result;
}

// Runs fibers of one warp until each waits for a barrier or is done.
static void run_warp(int first, int last) {
  for (;;) {
    for (int i = first; i < last; i++) {
      if (fibers[i]->state != kRuns) continue;
      current = fibers[i];
      swapcontext(&scheduler, &current->context);
    }
    int waiting = 0;
    for (int i = first; i < last; i++) waiting += fibers[i]->state == kAtWarp;
    if (waiting == 0) return;
    if (waiting != last - first) fail("a warp acts as one, and some of its threads do not");
    for (int i = first; i < last; i++) fibers[i]->state = kRuns;
  }
}

static void run_block(int threads, bool backwards) {
  static std::vector<char*> stacks;
  const size_t size = 1 << 16;
  while (static_cast<int>(stacks.size()) < threads) {
    stacks.push_back(static_cast<char*>(malloc(size)));
    fibers.push_back(new Fiber());
  }
  for (int i = 0; i < threads; i++) {
    Fiber* fiber = fibers[i];
    fiber->x = i;
    fiber->state = kRuns;
    fiber->groups.clear();
    fiber->open.clear();
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stacks[i];
    fiber->context.uc_stack.ss_size = size;
    fiber->context.uc_link = &scheduler;
    makecontext(&fiber->context, entry, 0);
  }
  for (int warps = (threads + 31) / 32;;) {
    for (int i = 0; i < warps; i++) {
      int w = backwards ? warps - 1 - i : i;
      run_warp(32 * w, min(threads, 32 * w + 32));
    }
    int done = 0;
    for (int i = 0; i < threads; i++) done += fibers[i]->state == kDone;
    if (done == threads) return;
    if (done) fail("a barrier that some threads miss");
    for (int i = 0; i < threads; i++) fibers[i]->state = kRuns;
  }
}

static void run_grid(void (*function)(), int blocks, int threads, size_t bytes, bool early, bool backwards) {
  kernel = function;
  copies_early = early;
  shared_bytes = bytes;
  shared_memory = static_cast<unsigned char*>(aligned_alloc(128, (bytes + 127) / 128 * 128 + 128));
  for (int i = 0; i < blocks; i++) {
    blockIdx = {i, 0, 0};
    memset(shared_memory, 0x5b, bytes);
    run_block(threads, backwards);
  }
  free(shared_memory);
}
