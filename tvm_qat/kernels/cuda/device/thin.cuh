// Sums of products with few rows, by dp4a. Memory is their limit: each weight is read once, and a warp reads
// bytes that follow one another.
//
//   kLanes lanes along the depth, 16 bytes each; the warp's other lanes and kWarpsN warps along the columns,
//   kEach columns a lane; kSplit times as many warps share the depth
//   for each piece of 16 bytes: kEach pieces of weights, and of each row its data, which is in the cache
//   sums over lanes by shuffles, to shared memory, over the shares of the depth there
//
// A warp writes few sums, once, and thread i adds up word i of all shares: no bank conflict that counts.

template <int kRows, int kEach, int kLanes, int kWarpsN, int kSplit>
struct QatThinTile {
  static constexpr int rows = kRows, each = kEach, lanes = kLanes, warps_n = kWarpsN, split = kSplit;
  static constexpr int threads = 32 * kWarpsN * kSplit, groups = 32 / kLanes, columns = kEach * groups * kWarpsN;
  static constexpr int part = kRows * columns + columns + kRows;  // sums, those of columns and of rows
};

template <int kCount, int kLanes>
QAT_DEVICE void qat_add_lanes(int (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) {
#pragma unroll
    for (int bits = kLanes / 2; bits > 0; bits /= 2) sums[i] += qat_swapped(sums[i], bits);
  }
}

// The tile whose first row and column these are, in shared[row * columns + column]; behind it, where asked
// for, the sums of the columns of `right`, then those of the rows of `left`.
template <class Tile, class Left, class Right, bool kSumRight, bool kSumLeft, class LeftRows, class RightRows>
QAT_DEVICE void qat_thin(
    int* shared, const void* left_data, const void* right_data, int m0, int n0, const LeftRows& left_rows,
    const RightRows& right_rows) {
  const unsigned char *from_left = static_cast<const unsigned char*>(left_data),
                      *from_right = static_cast<const unsigned char*>(right_data);
  const int lane = qat_thread() % 32, warp = qat_thread() / 32, share = warp / Tile::warps_n;
  const int column = (warp % Tile::warps_n * Tile::groups + lane / Tile::lanes) * Tile::each;
  typename LeftRows::Row left[Tile::rows];
  typename RightRows::Row right[Tile::each];
  int acc[Tile::rows * Tile::each], sums_right[Tile::each], sums_left[Tile::rows];
#pragma unroll
  for (int m = 0; m < Tile::rows; m++) left[m] = left_rows.row(m0 + m), sums_left[m] = 0;
#pragma unroll
  for (int n = 0; n < Tile::each; n++) right[n] = right_rows.row(n0 + column + n), sums_right[n] = 0;
#pragma unroll
  for (int i = 0; i < Tile::rows * Tile::each; i++) acc[i] = 0;

  constexpr int kStep = 16 * Tile::lanes * Tile::split, kAhead = Tile::rows * Tile::each > 8 ? 2 : 4;
  const int turns = (left_rows.depth + kStep - 1) / kStep;
#pragma unroll kAhead
  for (int turn = 0; turn < turns; turn++) {
    const int k = turn * kStep + (share * Tile::lanes + lane % Tile::lanes) * 16;
    unsigned b[Tile::each][4];
#pragma unroll
    for (int n = 0; n < Tile::each; n++) qat_fetch(b[n], from_right, right_rows, right[n], k);
#pragma unroll
    for (int m = 0; m < Tile::rows; m++) {
      unsigned a[4];
      qat_fetch(a, from_left, left_rows, left[m], k);
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int n = 0; n < Tile::each; n++) {
          int& sum = acc[m * Tile::each + n];
          sum = qat_dot4(a[i], b[n][i], sum, Left(), Right());
          if (kSumRight && m == 0) sums_right[n] = qat_dot4(0x01010101u, b[n][i], sums_right[n], Left(), Right());
        }
        if (kSumLeft) sums_left[m] = qat_dot4(a[i], 0x01010101u, sums_left[m], Left(), Right());
      }
    }
  }
  qat_add_lanes<Tile::rows * Tile::each, Tile::lanes>(acc);
  if (kSumRight) qat_add_lanes<Tile::each, Tile::lanes>(sums_right);
  if (kSumLeft) qat_add_lanes<Tile::rows, Tile::lanes>(sums_left);

  int *own = shared + share * Tile::part, *behind = own + Tile::rows * Tile::columns;
  if (lane % Tile::lanes == 0) {
#pragma unroll
    for (int n = 0; n < Tile::each; n++) {
#pragma unroll
      for (int m = 0; m < Tile::rows; m++) own[m * Tile::columns + column + n] = acc[m * Tile::each + n];
      if (kSumRight) behind[column + n] = sums_right[n];
    }
    if (kSumLeft && column == 0) {
#pragma unroll
      for (int m = 0; m < Tile::rows; m++) behind[Tile::columns + m] = sums_left[m];
    }
  }
  qat_barrier();
  if (Tile::split > 1) {
    for (int i = qat_thread(); i < Tile::part; i += Tile::threads) {
      int sum = shared[i];
#pragma unroll
      for (int other = 1; other < Tile::split; other++) sum += shared[other * Tile::part + i];
      shared[i] = sum;
    }
    qat_barrier();
  }
}
