// Sums of products of bytes by tensor cores.
//
//   copies of the tiles to come, kStages - 1 ahead (cp.async, a ring in shared memory)
//   for each 64 bytes of depth:
//     wait for its copies; one barrier; begin the next copies
//     fragments by ldmatrix, products by mma.sync m16n8k32, sums in registers
//   the sums to shared memory, from where the epilogue reads them, or those of a share of the depth to a
//   workspace, from where a second kernel does
//
// A tile's rows are 64 bytes, four chunks of 16, which lie permuted by their row so that the eight
// rows that ldmatrix reads together use all banks.

// The 16 bytes from element k of a row on, in shared memory; later, where they can be copied.
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

// Sums of a warp's part of a tile as mma.sync holds them; right, left : sums of the columns and of the rows.
template <class Tile>
struct QatSums {
  int of[Tile::m][Tile::n][4], right[Tile::n][4], left[Tile::m][4];
  QAT_DEVICE_MEMBER QatSums() {
#pragma unroll
    for (int x = 0; x < 4; x++) {
#pragma unroll
      for (int i = 0; i < Tile::m; i++) {
        left[i][x] = 0;
#pragma unroll
        for (int j = 0; j < Tile::n; j++) of[i][j][x] = 0;
      }
#pragma unroll
      for (int j = 0; j < Tile::n; j++) right[j][x] = 0;
    }
  }
  // Of the first sum of the warp, in the tile.
  static QAT_DEVICE_MEMBER int row() { return qat_thread() / 32 / Tile::warps_n * Tile::m * 16; }
  static QAT_DEVICE_MEMBER int column() { return qat_thread() / 32 % Tile::warps_n * Tile::n * 8; }
};

// Adds the products of the steps from `first` on, `steps` of them.
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_add_products(
    QatSums<Tile>& sums, int* shared, const void* left_data, const void* right_data, int m0, int n0,
    const LeftRows& left_rows, const RightRows& right_rows, int first, int steps) {
  unsigned char* ring = reinterpret_cast<unsigned char*>(shared);
  const unsigned char *from_left = static_cast<const unsigned char*>(left_data),
                      *from_right = static_cast<const unsigned char*>(right_data);
  constexpr int kLeftBytes = Tile::rows * Tile::depth, kSlot = kLeftBytes + Tile::columns * Tile::depth;
  const QatLoader<Tile, LeftRows, Tile::rows> left(left_rows, m0);
  const QatLoader<Tile, RightRows, Tile::columns> right(right_rows, n0);
  const int lane = qat_thread() % 32, row = sums.row(), column = sums.column();
  const unsigned ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};

#pragma unroll
  for (int k = 0; k < Tile::stages - 1; k++) {
    if (k < steps) {
      left(ring + k * kSlot, from_left, first + k);
      right(ring + k * kSlot + kLeftBytes, from_right, first + k);
    }
    qat_commit();
  }
  int reads = 0, writes = Tile::stages - 1;
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    qat_wait<Tile::stages - 2>();
    qat_barrier();
    if (k + Tile::stages - 1 < steps) {
      left(ring + writes * kSlot, from_left, first + k + Tile::stages - 1);
      right(ring + writes * kSlot + kLeftBytes, from_right, first + k + Tile::stages - 1);
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
          qat_mma(sums.of[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], Left(), Right());
        if (kSumLeft) qat_mma(sums.left[i], a[i], ones[0], ones[0], Left(), Right());
      }
      if (kSumRight) {
#pragma unroll
        for (int j = 0; j < Tile::n; j++)
          qat_mma(sums.right[j], ones, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], Left(), Right());
      }
    }
    reads = reads == Tile::stages - 1 ? 0 : reads + 1;
    writes = writes == Tile::stages - 1 ? 0 : writes + 1;
  }
  qat_wait<0>();
  qat_barrier();
}

// The tile of sums whose first row and column these are, in shared[row * line + column]; behind the tile,
// where asked for, the sums of the columns of `right`, then those of the rows of `left`.
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_product(
    int* shared, const void* left_data, const void* right_data, int m0, int n0, const LeftRows& left_rows,
    const RightRows& right_rows) {
  QatSums<Tile> sums;
  const int steps = (left_rows.depth + Tile::depth - 1) / Tile::depth;
  qat_add_products<Tile, Left, Right, kSumRight, kSumLeft>(
      sums, shared, left_data, right_data, m0, n0, left_rows, right_rows, 0, steps);
  const int lane = qat_thread() % 32, warp = qat_thread() / 32, row = sums.row(), column = sums.column();

  int* behind = shared + Tile::rows * Tile::line;
#pragma unroll
  for (int i = 0; i < Tile::m; i++) {
#pragma unroll
    for (int x = 0; x < 4; x++) {
      int m = row + i * 16 + lane / 4 + x / 2 * 8;
#pragma unroll
      for (int j = 0; j < Tile::n; j++)
        shared[m * Tile::line + column + j * 8 + lane % 4 * 2 + x % 2] = sums.of[i][j][x];
      if (kSumLeft && warp % Tile::warps_n == 0 && lane % 4 == 0 && x % 2 == 0)
        behind[Tile::columns + m] = sums.left[i][x];
    }
  }
  if (kSumRight && warp / Tile::warps_n == 0 && lane / 4 == 0) {
#pragma unroll
    for (int j = 0; j < Tile::n; j++) {
#pragma unroll
      for (int x = 0; x < 2; x++) behind[column + j * 8 + lane % 4 * 2 + x] = sums.right[j][x];
    }
  }
  qat_barrier();
}

// The same sums over the steps of one share, `of_share` of them, in memory: all[start + row * line + column].
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_product_share(
    int* all, int start, int line, int share, int of_share, int* shared, const void* left_data,
    const void* right_data, int m0, int n0, const LeftRows& left_rows, const RightRows& right_rows) {
  QatSums<Tile> sums;
  const int steps = (left_rows.depth + Tile::depth - 1) / Tile::depth, first = share * of_share;
  qat_add_products<Tile, Left, Right, false, false>(
      sums, shared, left_data, right_data, m0, n0, left_rows, right_rows, first, min(of_share, steps - first));
  const int lane = qat_thread() % 32, row = sums.row() + lane / 4, column = sums.column() + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < Tile::m; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int j = 0; j < Tile::n; j++)
        qat_write<2>(all + start + (row + i * 16 + half * 8) * line + column + j * 8, sums.of[i][j] + half * 2);
    }
  }
}

// Four neighbouring sums, added up over all shares, which lie kApart.
template <int kShares, int kApart>
QAT_DEVICE void qat_add_shares(int* sums, const int* from, int start) {
  unsigned all[4] = {0, 0, 0, 0};
#pragma unroll
  for (int share = 0; share < kShares; share++) {
    unsigned part[4];
    qat_read<16>(part, from + start + share * kApart);
#pragma unroll
    for (int e = 0; e < 4; e++) all[e] += part[e];
  }
#pragma unroll
  for (int e = 0; e < 4; e++) sums[e] = static_cast<int>(all[e]);
}
