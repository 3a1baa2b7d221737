// Sums of products of bytes by tensor cores.
//
//   copies of the tiles to come, kStages - 1 ahead (cp.async, a ring in shared memory)
//   for each 64 bytes of depth:
//     wait for its copies; one barrier; begin the next copies
//     fragments by ldmatrix, products by mma.sync m16n8k32, sums in registers
//   the sums to shared memory, from where the epilogue reads them
//
// A tile's rows are 64 bytes, four chunks of 16, which lie permuted by their row so that the eight
// rows that ldmatrix reads together use all banks.

enum QatPlace { kQatZero, kQatRead, kQatFill };
// Of an element: nothing there (zero), at the offset, or padding.

// A size: kKnown, or, where that is kQatAny, one that the kernel is given when it runs.
constexpr int kQatAny = -1;
template <int kKnown>
struct QatSize {
  QAT_DEVICE_MEMBER QatSize(int) {}
  QAT_DEVICE_MEMBER constexpr operator int() const { return kKnown; }
};
template <>
struct QatSize<kQatAny> {
  int value;
  QAT_DEVICE_MEMBER QatSize(int size) : value(size) {}
  QAT_DEVICE_MEMBER operator int() const { return value; }
};

// The rows of a matrix: element k of a row lies `step` after element k - 1. kWidth : bytes copied at once.
template <int kRows, int kDepth, int kStride, int kStep, int kWidth>
struct QatMatrix {
  static constexpr int width = kWidth;
  static constexpr unsigned fill = 0;
  QatSize<kRows> rows;
  QatSize<kDepth> depth;
  QatSize<kStride> stride;
  QatSize<kStep> step;
  QAT_DEVICE_MEMBER QatMatrix(int rows_, int depth_, int stride_, int step_)
      : rows(rows_), depth(depth_), stride(stride_), step(step_) {}
  struct Row { bool inside; int start; };
  QAT_DEVICE_MEMBER Row row(int m) const { return {m < rows, m * stride}; }
  QAT_DEVICE_MEMBER QatPlace find(const Row& row, int k, int& at) const {
    at = row.start + k * step;
    return row.inside && k < depth ? kQatRead : kQatZero;
  }
};

// The pixels under the taps of a convolution, channels last: row m is output pixel m, and its elements
// are ordered by tap, then by channel. Sizes of the data may be known at run time only.
template <int kBatch, int kHeight, int kWide, int kOutH, int kOutW, int kChannels, int kTapsH, int kTapsW,
          int kStrideH, int kStrideW, int kDilationH, int kDilationW, int kTop, int kLeft, int kWidth, int kPadding>
struct QatPixels {
  static constexpr int width = kWidth, depth = kTapsH * kTapsW * kChannels;
  static constexpr unsigned fill = (kPadding & 255) * 0x01010101u;
  QatSize<kBatch> batch;
  QatSize<kHeight> height;
  QatSize<kWide> wide;
  QatSize<kOutH> out_h;
  QatSize<kOutW> out_w;
  QAT_DEVICE_MEMBER QatPixels(int batch_, int height_, int wide_, int out_h_, int out_w_)
      : batch(batch_), height(height_), wide(wide_), out_h(out_h_), out_w(out_w_) {}
  struct Row { bool inside; int start, y, x; };
  QAT_DEVICE_MEMBER Row row(int m) const {
    int y = m / out_w % out_h * kStrideH - kTop, x = m % out_w * kStrideW - kLeft, n = m / (out_w * out_h);
    return {m < batch * out_h * out_w, ((n * height + y) * wide + x) * kChannels, y, x};
  }
  QAT_DEVICE_MEMBER QatPlace find(const Row& row, int k, int& at) const {
    int tap = k / kChannels, dy = tap / kTapsW * kDilationH, dx = tap % kTapsW * kDilationW;
    at = row.start + (dy * wide + dx) * kChannels + k % kChannels;
    if (!row.inside || k >= depth) return kQatZero;
    bool there = static_cast<unsigned>(row.y + dy) < static_cast<unsigned>(height) &&
                 static_cast<unsigned>(row.x + dx) < static_cast<unsigned>(wide);
    return there ? kQatRead : kQatFill;
  }
};

// The 16 bytes from element k of a row on, in registers.
template <class Source>
QAT_DEVICE void qat_fetch(
    unsigned (&words)[4], const unsigned char* from, const Source& source, const typename Source::Row& row, int k) {
  constexpr int kBytes = Source::width;
#pragma unroll
  for (int i = 0; i < 4; i++) words[i] = 0;
#pragma unroll
  for (int i = 0; i < 16; i += kBytes) {
    int at;
    QatPlace place = source.find(row, k + i, at);
    if (kBytes == 1) {
      unsigned byte = place == kQatRead ? from[at] : place == kQatFill ? Source::fill & 255 : 0;
      words[i / 4] |= byte << (8 * (i % 4));
    } else if (place == kQatRead) {
      qat_read<(kBytes > 4 ? kBytes : 4)>(words + i / 4, from + at);
    } else if (Source::fill != 0 && place == kQatFill) {
#pragma unroll
      for (int word = 0; word < kBytes / 4; word++) words[i / 4 + word] = Source::fill;
    }
  }
}

// The same 16 bytes in shared memory, later where they can be copied.
template <class Source>
QAT_DEVICE void qat_load(
    unsigned char* to, const unsigned char* from, const Source& source, const typename Source::Row& row, int k) {
  if (Source::width == 1) {
    unsigned words[4];
    qat_fetch(words, from, source, row, k);
#pragma unroll
    for (int i = 0; i < 4; i++) reinterpret_cast<unsigned*>(to)[i] = words[i];
    return;
  }
  constexpr int kBytes = Source::width == 1 ? 4 : Source::width;
#pragma unroll
  for (int i = 0; i < 16; i += kBytes) {
    int at;
    QatPlace place = source.find(row, k + i, at);
    if (Source::fill != 0 && place == kQatFill) {
#pragma unroll
      for (int word = 0; word < kBytes; word += 4) *reinterpret_cast<unsigned*>(to + i + word) = Source::fill;
    } else {
      qat_copy<kBytes>(to + i, place == kQatRead ? from + at : from, place == kQatRead);
    }
  }
}

template <int kRows, int kColumns, int kWarpsM, int kWarpsN, int kStages_>
struct QatTile {
  static constexpr int rows = kRows, columns = kColumns, warps_m = kWarpsM, warps_n = kWarpsN, stages = kStages_;
  static constexpr int threads = 32 * kWarpsM * kWarpsN, depth = 64;
  static constexpr int m = kRows / kWarpsM / 16, n = kColumns / kWarpsN / 8;  // mma tiles of a warp
  static constexpr int line = kColumns + 8;                                   // of the sums in shared memory
};

// Where chunk c of a row lies.
QAT_DEVICE int qat_chunk(int row, int c) { return row * 64 + ((c ^ ((row >> 1) & 3)) << 4); }

template <class Tile, class Source, int kRows>
struct QatLoader {
  static constexpr int step = Tile::threads / 4, count = kRows / step;
  const Source& source;
  typename Source::Row rows[count];
  QAT_DEVICE_MEMBER QatLoader(const Source& source_, int first) : source(source_) {
#pragma unroll
    for (int i = 0; i < count; i++) rows[i] = source.row(first + qat_thread() / 4 + i * step);
  }
  QAT_DEVICE_MEMBER void operator()(unsigned char* to, const unsigned char* from, int k) const {
    int row = qat_thread() / 4, c = qat_thread() % 4;
#pragma unroll
    for (int i = 0; i < count; i++)
      qat_load(to + qat_chunk(row + i * step, c), from, source, rows[i], k * Tile::depth + c * 16);
  }
};

// The tile of sums whose first row and column these are, in shared[row * line + column]; behind the tile,
// where asked for, the sums of the columns of `right`, then those of the rows of `left`.
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_product(
    int* shared, const void* left_data, const void* right_data, int m0, int n0, const LeftRows& left_rows,
    const RightRows& right_rows) {
  unsigned char* ring = reinterpret_cast<unsigned char*>(shared);
  const unsigned char *from_left = static_cast<const unsigned char*>(left_data),
                      *from_right = static_cast<const unsigned char*>(right_data);
  const int steps = (left_rows.depth + Tile::depth - 1) / Tile::depth;
  constexpr int kLeftBytes = Tile::rows * Tile::depth, kSlot = kLeftBytes + Tile::columns * Tile::depth;
  const QatLoader<Tile, LeftRows, Tile::rows> left(left_rows, m0);
  const QatLoader<Tile, RightRows, Tile::columns> right(right_rows, n0);
  const int lane = qat_thread() % 32, warp = qat_thread() / 32;
  const int row = warp / Tile::warps_n * Tile::m * 16, column = warp % Tile::warps_n * Tile::n * 8;

  int acc[Tile::m][Tile::n][4], sums_right[Tile::n][4], sums_left[Tile::m][4];
#pragma unroll
  for (int x = 0; x < 4; x++) {
#pragma unroll
    for (int i = 0; i < Tile::m; i++) {
      sums_left[i][x] = 0;
#pragma unroll
      for (int j = 0; j < Tile::n; j++) acc[i][j][x] = 0;
    }
#pragma unroll
    for (int j = 0; j < Tile::n; j++) sums_right[j][x] = 0;
  }
  const unsigned ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};

#pragma unroll
  for (int k = 0; k < Tile::stages - 1; k++) {
    if (k < steps) {
      left(ring + k * kSlot, from_left, k);
      right(ring + k * kSlot + kLeftBytes, from_right, k);
    }
    qat_commit();
  }
  int reads = 0, writes = Tile::stages - 1;
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    qat_wait<Tile::stages - 2>();
    qat_barrier();
    if (k + Tile::stages - 1 < steps) {
      left(ring + writes * kSlot, from_left, k + Tile::stages - 1);
      right(ring + writes * kSlot + kLeftBytes, from_right, k + Tile::stages - 1);
    }
    qat_commit();
    const unsigned char *a_tile = ring + reads * kSlot, *b_tile = a_tile + kLeftBytes;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      unsigned a[Tile::m][4], b[Tile::n / 2][4];
#pragma unroll
      for (int i = 0; i < Tile::m; i++)
        qat_load_matrices(a[i], a_tile + qat_chunk(row + i * 16 + lane % 16, 2 * half + lane / 16));
#pragma unroll
      for (int j = 0; j < Tile::n / 2; j++)
        qat_load_matrices(b[j], b_tile + qat_chunk(column + j * 16 + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < Tile::m; i++) {
#pragma unroll
        for (int j = 0; j < Tile::n; j++)
          qat_mma(acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], Left(), Right());
        if (kSumLeft) qat_mma(sums_left[i], a[i], ones[0], ones[0], Left(), Right());
      }
      if (kSumRight) {
#pragma unroll
        for (int j = 0; j < Tile::n; j++)
          qat_mma(sums_right[j], ones, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], Left(), Right());
      }
    }
    reads = reads == Tile::stages - 1 ? 0 : reads + 1;
    writes = writes == Tile::stages - 1 ? 0 : writes + 1;
  }
  qat_wait<0>();
  qat_barrier();

  int* behind = shared + Tile::rows * Tile::line;
#pragma unroll
  for (int i = 0; i < Tile::m; i++) {
#pragma unroll
    for (int x = 0; x < 4; x++) {
      int m = row + i * 16 + lane / 4 + x / 2 * 8;
#pragma unroll
      for (int j = 0; j < Tile::n; j++)
        shared[m * Tile::line + column + j * 8 + lane % 4 * 2 + x % 2] = acc[i][j][x];
      if (kSumLeft && warp % Tile::warps_n == 0 && lane % 4 == 0 && x % 2 == 0)
        behind[Tile::columns + m] = sums_left[i][x];
    }
  }
  if (kSumRight && warp / Tile::warps_n == 0 && lane / 4 == 0) {
#pragma unroll
    for (int j = 0; j < Tile::n; j++) {
#pragma unroll
      for (int x = 0; x < 2; x++) behind[column + j * 8 + lane % 4 * 2 + x] = sums_right[j][x];
    }
  }
  qat_barrier();
}
