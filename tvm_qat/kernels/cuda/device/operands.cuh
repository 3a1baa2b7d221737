// Where the rows of a product's operands lie: a matrix, or the pixels under a convolution's taps.

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
  static constexpr bool follows = kStep == 1;  // one element after the other, in memory too
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
  QAT_DEVICE_MEMBER int count(const Row& row, int k) const { return row.inside ? min(16, depth - k) : 0; }
};

// The pixels under the taps of a convolution, channels last: row m is output pixel m, and its elements
// are ordered by tap, then by channel. Sizes of the data may be known at run time only.
template <int kBatch, int kHeight, int kWide, int kOutH, int kOutW, int kChannels, int kTapsH, int kTapsW,
          int kStrideH, int kStrideW, int kDilationH, int kDilationW, int kTop, int kLeft, int kWidth, int kPadding>
struct QatPixels {
  static constexpr int width = kWidth, depth = kTapsH * kTapsW * kChannels;
  static constexpr bool follows = false;  // from tap to tap
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

// Those of 16 bytes that there are, `count`, from any address on: whole words around them, shifted. A word
// with a byte of a tensor in it can be read: memory comes in larger units.
QAT_DEVICE void qat_fetch_anywhere(unsigned (&words)[4], const unsigned char* from, int count) {
  const int shift = static_cast<int>(reinterpret_cast<size_t>(from) & 3);
  unsigned around[5];
#pragma unroll
  for (int i = 0; i < 5; i++) {
    around[i] = 0;
    if (count > 0 && 4 * i < shift + count) qat_read<4>(around + i, from - shift + 4 * i);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    words[i] = qat_permute(around[i], around[i + 1], 0x3210 + 0x1111 * shift);
    const int there = count - 4 * i;
    if (there < 4) words[i] &= there > 0 ? (1u << (8 * there)) - 1 : 0;
  }
}

// The 16 bytes from element k of a row on, in registers.
template <class Source>
QAT_DEVICE void qat_fetch(
    unsigned (&words)[4], const unsigned char* from, const Source& source, const typename Source::Row& row, int k) {
  constexpr int kBytes = Source::width;
  if constexpr (kBytes == 1 && Source::follows) {
    int at;
    source.find(row, k, at);
    return qat_fetch_anywhere(words, from + at, source.count(row, k));
  }
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
