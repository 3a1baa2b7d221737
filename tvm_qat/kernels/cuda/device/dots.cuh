// Sums of products of bytes by dp4a, for GPUs without tensor cores for them.
//
//   for each 32 bytes of depth:
//     what was read of them goes to shared memory, one of two slots; one barrier
//     the next 32 bytes are read into registers meanwhile
//     words of four bytes by dp4a, 8 x 8 sums a thread
//   the sums wait in registers; a row of warps after the other leaves them in shared memory
//
// In shared memory word w of all rows lies together, rows + 4 words after word w - 1. Storing: two lanes
// hold a row's eight words, so that lanes l and l + 1 store 4 * (rows + 4) = 16 banks apart, modulo 32,
// and the 16 rows of a warp take the rest: no conflict. Loading: the lanes of a warp read 4 x 16 bytes of
// the left tile and 8 x 16 of the right one, at most 128 bytes that follow one another: no conflict.

template <int kWarpsM, int kWarpsN>
struct QatDotTile {
  static constexpr int rows = 32 * kWarpsM, columns = 64 * kWarpsN, threads = 32 * kWarpsM * kWarpsN;
  static constexpr int warps_n = kWarpsN, words = 8, depth = 4 * words;
  static constexpr int left_line = rows + 4, right_line = columns + 4;
  static constexpr int left = words * left_line, slot = left + words * right_line;
  static constexpr int line = columns + 4;  // of the sums in shared memory
};

// A thread's share of 32 bytes of each row of a tile: chunks of 16.
template <class Tile, class Source, int kRows>
struct QatWordLoader {
  static constexpr int count = 2 * kRows / Tile::threads;
  const Source& source;
  typename Source::Row rows[count];
  unsigned words[count][4];
  QAT_DEVICE_MEMBER QatWordLoader(const Source& source_, int first) : source(source_) {
#pragma unroll
    for (int i = 0; i < count; i++) rows[i] = source.row(first + (qat_thread() + i * Tile::threads) / 2);
  }
  QAT_DEVICE_MEMBER void read(const unsigned char* from, int k) {
#pragma unroll
    for (int i = 0; i < count; i++)
      qat_fetch(words[i], from, source, rows[i], k * Tile::depth + qat_thread() % 2 * 16);
  }
  QAT_DEVICE_MEMBER void store(int* to) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      int row = (qat_thread() + i * Tile::threads) / 2;
#pragma unroll
      for (int word = 0; word < 4; word++)
        to[(qat_thread() % 2 * 4 + word) * (kRows + 4) + row] = static_cast<int>(words[i][word]);
    }
  }
};

// The first of four rows or columns of a thread in the tile of its warp; the other four follow `next` later.
QAT_DEVICE int qat_dot_row() { return qat_thread() % 32 / 8 * 4; }
QAT_DEVICE int qat_dot_column() { return qat_thread() % 8 * 4; }

// acc : the thread's sums [8 rows][8 columns], then those of its columns of `right`, then of its rows of
// `left`, where asked for; over the steps from `first` on, `steps` of them.
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_add_dots(
    int* acc, int* shared, const void* left_data, const void* right_data, int m0, int n0,
    const LeftRows& left_rows, const RightRows& right_rows, int first, int steps) {
  const unsigned char *from_left = static_cast<const unsigned char*>(left_data),
                      *from_right = static_cast<const unsigned char*>(right_data);
  QatWordLoader<Tile, LeftRows, Tile::rows> left(left_rows, m0);
  QatWordLoader<Tile, RightRows, Tile::columns> right(right_rows, n0);
  const int warp = qat_thread() / 32;
  const int row = warp / Tile::warps_n * 32 + qat_dot_row(), column = warp % Tile::warps_n * 64 + qat_dot_column();
#pragma unroll
  for (int i = 0; i < 80; i++) acc[i] = 0;
  left.read(from_left, first);
  right.read(from_right, first);
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    int* slot = shared + k % 2 * Tile::slot;
    left.store(slot);
    right.store(slot + Tile::left);
    qat_barrier();
    if (k + 1 < steps) {
      left.read(from_left, first + k + 1);
      right.read(from_right, first + k + 1);
    }
#pragma unroll
    for (int word = 0; word < Tile::words; word++) {
      unsigned a[2][4], b[2][4];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        qat_read_shared(a[half], slot + word * Tile::left_line + row + half * 16);
        qat_read_shared(b[half], slot + Tile::left + word * Tile::right_line + column + half * 32);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++)
          acc[i * 8 + j] = qat_dot4(a[i / 4][i % 4], b[j / 4][j % 4], acc[i * 8 + j], Left(), Right());
        if (kSumRight) acc[64 + i] = qat_dot4(0x01010101u, b[i / 4][i % 4], acc[64 + i], Left(), Right());
        if (kSumLeft) acc[72 + i] = qat_dot4(a[i / 4][i % 4], 0x01010101u, acc[72 + i], Left(), Right());
      }
    }
  }
}

template <class Tile>
QAT_DEVICE int qat_dot_steps(int depth) { return (depth + Tile::depth - 1) / Tile::depth; }

// All of the depth.
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_dots(
    int* acc, int* shared, const void* left_data, const void* right_data, int m0, int n0,
    const LeftRows& left_rows, const RightRows& right_rows) {
  qat_add_dots<Tile, Left, Right, kSumRight, kSumLeft>(
      acc, shared, left_data, right_data, m0, n0, left_rows, right_rows, 0, qat_dot_steps<Tile>(left_rows.depth));
}

// One share of the depth, `of_share` steps, in memory: all[start + row * line + column].
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_dots_share(
    int* all, int start, int line, int share, int of_share, int* shared, const void* left_data,
    const void* right_data, int m0, int n0, const LeftRows& left_rows, const RightRows& right_rows) {
  int acc[80];
  const int first = share * of_share, steps = min(of_share, qat_dot_steps<Tile>(left_rows.depth) - first);
  qat_add_dots<Tile, Left, Right, false, false>(
      acc, shared, left_data, right_data, m0, n0, left_rows, right_rows, first, steps);
  const int warp = qat_thread() / 32;
  const int row = warp / Tile::warps_n * 32 + qat_dot_row(), column = warp % Tile::warps_n * 64 + qat_dot_column();
#pragma unroll
  for (int i = 0; i < 8; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int* to = all + start + (row + i / 4 * 16 + i % 4) * line + column + half * 32;
      qat_write<4>(to, acc + i * 8 + half * 4);
    }
  }
}

// What one row of warps has added up: shared[row * line + column], and behind it the sums of the columns of
// `right` and of the rows of `left`. All else has been read when this is called.
template <class Tile, bool kSumRight, bool kSumLeft>
QAT_DEVICE void qat_leave(int* shared, const int* acc, int part) {
  const int lane = qat_thread() % 32, warp = qat_thread() / 32;
  qat_barrier();
  if (warp / Tile::warps_n == part) {
    const int row = qat_dot_row(), column = warp % Tile::warps_n * 64 + qat_dot_column();
    int* behind = shared + 32 * Tile::line;
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        qat_write_shared(shared + (row + i / 4 * 16 + i % 4) * Tile::line + column + half * 32, acc + i * 8 + half * 4);
      }
      if (kSumRight && lane < 8) behind[column + i / 4 * 32 + i % 4] = acc[64 + i];
      if (kSumLeft && lane % 8 == 0 && warp % Tile::warps_n == 0)
        behind[Tile::columns + row + i / 4 * 16 + i % 4] = acc[72 + i];
    }
  }
  qat_barrier();
}
