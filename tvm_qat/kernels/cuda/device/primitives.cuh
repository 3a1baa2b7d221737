// What generated kernels need of the hardware, one function each. All else is written on top of these;
// tests/cuda/emulator.h has the same functions for a CPU.

#define QAT_DEVICE static __device__ __forceinline__
#define QAT_DEVICE_MEMBER __device__ __forceinline__

// A value that is rounded here and combined with nothing that follows (compiled without contraction).
QAT_DEVICE float qat_fence(float x) { return x; }
QAT_DEVICE double qat_fence(double x) { return x; }

QAT_DEVICE float qat_multiply_add(float x, float y, float z) { return __fmaf_rn(x, y, z); }
QAT_DEVICE int qat_nearest(float x) { return __float2int_rn(x); }
QAT_DEVICE float qat_square_root(float x) { return __fsqrt_rn(x); }

QAT_DEVICE int qat_bits_int(float x) { return __float_as_int(x); }
QAT_DEVICE float qat_bits_float(int x) { return __int_as_float(x); }
QAT_DEVICE long long qat_bits_long(double x) { return __double_as_longlong(x); }
QAT_DEVICE double qat_bits_double(long long x) { return __longlong_as_double(x); }

QAT_DEVICE void qat_barrier() { __syncthreads(); }
QAT_DEVICE int qat_thread() { return threadIdx.x; }

// The value of the lane whose number differs in these bits, and of one lane.
template <class T> QAT_DEVICE T qat_swapped(T x, int bits) { return __shfl_xor_sync(0xffffffffu, x, bits); }
template <class T> QAT_DEVICE T qat_from_lane(T x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }

// kBytes (4, 8 or 16) from global to shared memory, later; zeros where `inside` is false.
template <int kBytes>
QAT_DEVICE void qat_copy(void* to, const void* from, bool inside) {
  unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
  int count = inside ? kBytes : 0;
  if (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(count) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(place), "l"(from), "n"(kBytes), "r"(count)
                 : "memory");
  }
}
QAT_DEVICE void qat_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All groups of copies but the last kPending are done.
template <int kPending>
QAT_DEVICE void qat_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory"); }

// Four 8 x 16 byte matrices; lane l gives the address of row l % 8 of matrix l / 8.
QAT_DEVICE void qat_load_matrices(unsigned (&r)[4], const void* row) {
  unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(place) : "memory");
}

#define QAT_MMA(LEFT, RIGHT, L, R)                                                                     \
  QAT_DEVICE void qat_mma(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, LEFT, RIGHT) { \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." L "." R ".s32 {%0, %1, %2, %3}, "            \
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                       \
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                      \
  }
// c[16 x 8] += a[16 x 32] * b[32 x 8], modulo 2^32; the last two arguments only give the types.
QAT_MMA(signed char, signed char, "s8", "s8")
QAT_MMA(unsigned char, signed char, "u8", "s8")
QAT_MMA(signed char, unsigned char, "s8", "u8")
QAT_MMA(unsigned char, unsigned char, "u8", "u8")

// kBytes (4, 8 or 16) of global memory that nothing writes meanwhile, and 16 of shared memory.
template <int kBytes>
QAT_DEVICE void qat_read(unsigned* to, const void* from) {
  if (kBytes == 16) {
    uint4 all = __ldg(static_cast<const uint4*>(from));
    to[0] = all.x, to[1] = all.y, to[2] = all.z, to[3] = all.w;
  } else if (kBytes == 8) {
    uint2 all = __ldg(static_cast<const uint2*>(from));
    to[0] = all.x, to[1] = all.y;
  } else {
    to[0] = __ldg(static_cast<const unsigned*>(from));
  }
}
QAT_DEVICE void qat_read_shared(unsigned (&to)[4], const void* from) {
  uint4 all = *static_cast<const uint4*>(from);
  to[0] = all.x, to[1] = all.y, to[2] = all.z, to[3] = all.w;
}
QAT_DEVICE void qat_write_shared(void* to, const int* from) {
  *static_cast<int4*>(to) = make_int4(from[0], from[1], from[2], from[3]);
}
// kWords (2 or 4) neighbouring int32 to global memory.
template <int kWords>
QAT_DEVICE void qat_write(int* to, const int* from) {
  if (kWords == 4) {
    *reinterpret_cast<int4*>(to) = make_int4(from[0], from[1], from[2], from[3]);
  } else {
    *reinterpret_cast<int2*>(to) = make_int2(from[0], from[1]);
  }
}

#define QAT_DOT4(LEFT, RIGHT, L, R)                                                 \
  QAT_DEVICE int qat_dot4(unsigned a, unsigned b, int acc, LEFT, RIGHT) {           \
    int sum;                                                                        \
    asm("dp4a." L "." R " %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(acc)); \
    return sum;                                                                     \
  }
// acc + the sum of four products of bytes, modulo 2^32; the last two arguments only give the types.
QAT_DOT4(signed char, signed char, "s32", "s32")
QAT_DOT4(unsigned char, signed char, "u32", "s32")
QAT_DOT4(signed char, unsigned char, "s32", "u32")
QAT_DOT4(unsigned char, unsigned char, "u32", "u32")
QAT_DEVICE unsigned qat_permute(unsigned a, unsigned b, unsigned order) { return __byte_perm(a, b, order); }
