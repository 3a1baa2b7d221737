// What the kernels of one thread an element, four channels or a row of a warp are written with.

// y where a float is NaN: CUDA's own functions give the other one.
template <class T> QAT_DEVICE T qat_greatest(T x, T y) { return x > y ? x : y; }
template <class T> QAT_DEVICE T qat_least(T x, T y) { return x < y ? x : y; }

// Four values as bytes, in one store; `to` is aligned to four bytes.
QAT_DEVICE void qat_store4(void* to, int a, int b, int c, int d) {
  *static_cast<unsigned*>(to) = (a & 255) | (b & 255) << 8 | (c & 255) << 16 | static_cast<unsigned>(d & 255) << 24;
}

// The 32 values of a warp, halves added to halves until one is left; the same in every lane.
template <class T> QAT_DEVICE T qat_sum_of_warp(T x) {
  for (int width = 16; width > 0; width /= 2) x = x + qat_swapped(x, width);
  return qat_from_lane(x, 0);
}
template <class T> QAT_DEVICE T qat_greatest_of_warp(T x) {
  for (int width = 16; width > 0; width /= 2) x = qat_greatest(x, qat_swapped(x, width));
  return qat_from_lane(x, 0);
}

// Four bytes from any address on, of which the first `count` are there; the others may be any.
QAT_DEVICE unsigned qat_word_anywhere(const unsigned char* from, int count) {
  const int shift = static_cast<int>(reinterpret_cast<size_t>(from) & 3);
  unsigned around[2];
  qat_read<4>(around, from - shift);
  around[1] = around[0];
  if (shift + count > 4) qat_read<4>(around + 1, from - shift + 4);
  return qat_permute(around[0], around[1], 0x3210 + 0x1111 * shift);
}

// Four neighbouring channels of a depthwise convolution at output pixel m: four taps at a time, their
// bytes exchanged so that a word holds four taps of one channel.
// weights : [channels / 4, rounded up][groups of four taps][channel] words of four taps, zeros behind the last.
template <int kChannels, int kTaps, class Byte, class Pixels>
QAT_DEVICE void qat_depthwise(
    int* acc, const void* data, const int* weights, int m, int channel, const Pixels& pixels) {
  constexpr int kGroups = (kTaps + 3) / 4;
  const unsigned char* from = static_cast<const unsigned char*>(data);
  const typename Pixels::Row row = pixels.row(m);
  const int count = kChannels % 4 == 0 ? 4 : min(4, kChannels - channel);
#pragma unroll
  for (int e = 0; e < 4; e++) acc[e] = 0;
#pragma unroll
  for (int group = 0; group < kGroups; group++) {
    unsigned p[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
      int at;
      QatPlace place = pixels.find(row, (group * 4 + t) * kChannels + channel, at);
      p[t] = place == kQatFill ? Pixels::fill : 0;
      if (place == kQatRead && kChannels % 4 == 0) qat_read<4>(p + t, from + at);
      if (place == kQatRead && kChannels % 4 != 0) p[t] = qat_word_anywhere(from + at, count);
    }
    unsigned low = qat_permute(p[0], p[1], 0x5140), high = qat_permute(p[0], p[1], 0x7362);
    unsigned low2 = qat_permute(p[2], p[3], 0x5140), high2 = qat_permute(p[2], p[3], 0x7362);
    unsigned words[4];
    qat_read<16>(words, weights + (channel / 4 * kGroups + group) * 4);
    const unsigned taps[4] = {qat_permute(low, low2, 0x5410), qat_permute(low, low2, 0x7632),
                              qat_permute(high, high2, 0x5410), qat_permute(high, high2, 0x7632)};
#pragma unroll
    for (int e = 0; e < 4; e++)
      acc[e] = qat_dot4(taps[e], words[e], acc[e], Byte(), static_cast<signed char>(0));
  }
}
