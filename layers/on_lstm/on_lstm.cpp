// The pointwise part of one ON-LSTM step on the CPU; steps.py has the same in plain torch, and the formulas.
//
// T is the type of the state and of all arithmetic, Z the type of the matrix products around it (z, h and their
// gradients). A row of the batch is one task. Rows of z: master input (M), master forget (M), output, cell, input,
// forget gate (H = M * C each).
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

struct bfloat16 {
    uint16_t bits;
};

template <class To, class From>
inline To bit_cast(From x) {
    return __builtin_bit_cast(To, x);
}

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(bfloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }

inline void store(float* to, float x) { *to = x; }
inline void store(double* to, double x) { *to = x; }
inline void store(bfloat16* to, float x) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits = bit_cast<uint32_t>(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    to->bits = uint16_t(x == x ? rounded : 0x7fc0);
}

// Written out instead of the library's, so that loops over them are vectorised without -ffast-math.
// 2^n e^r with |r| <= ln(2) / 2; the comparisons let NaN through. Relative error below 2e-7.
inline float exp(float x) {
    x = x > 88.0f ? 88.0f : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    float shifted = x * 1.44269504f + magic;
    float n = shifted - magic;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float e = 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    uint32_t power = (bit_cast<uint32_t>(shifted) - bit_cast<uint32_t>(magic) + 127u) << 23;
    float result = e * bit_cast<float>(power);
    return x < -87.0f ? 0.0f : result;  // exactly 0, as one-hot probabilities need
}
inline double exp(double x) { return std::exp(x); }

template <class T>
inline T sigmoid(T x) {
    return T(1) / (T(1) + exp(-x));
}

// Near 0 the odd series: 1 - 2 / (e^2x + 1) would cancel there.
inline float tanh(float x) {
    float s = x * x;
    float small = -1382.0f / 155925;
    small = small * s + 62.0f / 2835;
    small = small * s - 17.0f / 315;
    small = small * s + 2.0f / 15;
    small = small * s - 1.0f / 3;
    small = small * s * x + x;
    float large = 1.0f - 2.0f / (exp(2.0f * x) + 1.0f);
    return s < 0.09f ? small : large;
}
inline double tanh(double x) { return std::tanh(x); }

template <class T>
inline T at_most_one(T x) {
    return x > T(1) ? T(1) : x;
}

struct Shape {
    int64_t batch, levels, chunk, reverse, threads;
    int64_t hidden() const { return levels * chunk; }
    int64_t rows() const { return 2 * levels + 4 * hidden(); }
};

// Softmax probabilities p -> master input and forget gate, each level repeated chunk times.
template <class T>
void master_gates(const T* p, const Shape& s, T* input, T* forget) {
    const int64_t M = s.levels, C = s.chunk;
    double sum_input = 0, sum_forget = 0;
    for (int64_t k = 0; k < M; ++k) {
        int64_t level = s.reverse ? M - 1 - k : k;
        sum_input += p[level];
        sum_forget += p[M + k];
        T gate = at_most_one(T(sum_input)), f = at_most_one(T(sum_forget));
        if (!s.reverse) gate = T(1) - gate;
        for (int64_t i = 0; i < C; ++i) input[level * C + i] = gate;
        for (int64_t i = 0; i < C; ++i) forget[k * C + i] = f;
    }
}

template <class T>
T mean_of_levels(const T* gate, const Shape& s) {
    double sum = 0;
    for (int64_t k = 0; k < s.levels; ++k) sum += gate[k * s.chunk];
    return T(sum / s.levels);
}

template <class T, class Z>
void softmax(const Z* zx, const Z* zh, int64_t size, T* p) {
    T largest = load(zx[0]) + load(zh[0]), sum = 0;
    for (int64_t k = 0; k < size; ++k) {
        p[k] = load(zx[k]) + load(zh[k]);
        largest = p[k] > largest ? p[k] : largest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < size; ++k) {
        p[k] = exp(p[k] - largest);
        sum += p[k];
    }
    T scale = T(1) / sum;
#pragma omp simd
    for (int64_t k = 0; k < size; ++k) p[k] *= scale;
}

template <class T, class Z>
void forward_row(const Z* zx, const Z* zh, const T* c_before, T* a, T* c, Z* h, T* distance_forget, T* distance_input,
                 const Shape& s, T* work) {
    const int64_t M = s.levels, H = s.hidden();
    T *master_input = work, *master_forget = work + H;
    softmax(zx, zh, M, a);
    softmax(zx + M, zh + M, M, a + M);
    master_gates(a, s, master_input, master_forget);
    *distance_forget = T(1) - mean_of_levels(master_forget, s);
    *distance_input = mean_of_levels(master_input, s);
    zx += 2 * M, zh += 2 * M, a += 2 * M;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        T o = sigmoid(T(load(zx[j]) + load(zh[j])));
        T g = tanh(T(load(zx[H + j]) + load(zh[H + j])));
        T i = sigmoid(T(load(zx[2 * H + j]) + load(zh[2 * H + j])));
        T f = sigmoid(T(load(zx[3 * H + j]) + load(zh[3 * H + j])));
        T overlap = master_input[j] * master_forget[j];
        T forget = f * overlap + (master_forget[j] - overlap);
        T write = i * overlap + (master_input[j] - overlap);
        T state = forget * c_before[j] + write * g;
        a[j] = o, a[H + j] = g, a[2 * H + j] = i, a[3 * H + j] = f;
        c[j] = state;
        store(h + j, o * tanh(state));
    }
}

// dp -> dz of a softmax.
template <class T, class Z>
void softmax_backward(const T* p, const T* dp, int64_t size, Z* dz) {
    T dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t k = 0; k < size; ++k) dot += p[k] * dp[k];
#pragma omp simd
    for (int64_t k = 0; k < size; ++k) store(dz + k, p[k] * (dp[k] - dot));
}

template <class T, class Z>
void backward_row(const T* a, const T* c_before, const T* c, const Z* d_output, const Z* dh_next, T* dc,
                  T d_distance_forget, T d_distance_input, Z* dz, const Shape& s, T* work) {
    const int64_t M = s.levels, C = s.chunk, H = s.hidden();
    T *master_input = work, *master_forget = work + H, *d_input = work + 2 * H, *d_forget = work + 3 * H;
    master_gates(a, s, master_input, master_forget);
    const T* gate = a + 2 * M;
    Z* d = dz + 2 * M;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        T o = gate[j], g = gate[H + j], i = gate[2 * H + j], f = gate[3 * H + j];
        T mi = master_input[j], mf = master_forget[j], t = tanh(c[j]);
        T overlap = mi * mf;
        T forget = f * overlap + (mf - overlap), write = i * overlap + (mi - overlap);
        T dh = load(d_output[j]) + load(dh_next[j]);
        T d_state = dc[j] + dh * o * (T(1) - t * t);
        T df = d_state * c_before[j], di = d_state * g;
        store(d + j, dh * t * o * (T(1) - o));
        store(d + H + j, d_state * write * (T(1) - g * g));
        store(d + 2 * H + j, di * overlap * i * (T(1) - i));
        store(d + 3 * H + j, df * overlap * f * (T(1) - f));
        T d_overlap = df * (f - T(1)) + di * (i - T(1));
        d_forget[j] = df + d_overlap * mi;
        d_input[j] = di + d_overlap * mf;
        dc[j] = d_state * forget;
    }
    // Sums over the neurons of a level, then over the levels that a probability counts in; reuses work that is free now.
    T *dp_input = master_input, *dp_forget = master_forget;
    for (int64_t k = 0; k < M; ++k) {
        T sum_input = d_distance_input / T(M), sum_forget = -d_distance_forget / T(M);
        for (int64_t i = 0; i < C; ++i) sum_input += d_input[k * C + i], sum_forget += d_forget[k * C + i];
        dp_input[k] = sum_input, dp_forget[k] = sum_forget;
    }
    for (int64_t k = M - 2; k >= 0; --k) dp_forget[k] += dp_forget[k + 1];
    if (s.reverse) {
        for (int64_t k = 1; k < M; ++k) dp_input[k] += dp_input[k - 1];
    } else {
        for (int64_t k = M - 2; k >= 0; --k) dp_input[k] += dp_input[k + 1];
        for (int64_t k = 0; k < M; ++k) dp_input[k] = -dp_input[k];
    }
    softmax_backward(a, dp_input, M, dz);
    softmax_backward(a + M, dp_forget, M, dz + M);
}

template <class T, class Z>
void forward(const Z* zx, const Z* zh, const T* c_before, T* a, T* c, Z* h, T* distance_forget, T* distance_input,
             const Shape& s) {
    const int64_t N = s.rows(), H = s.hidden();
#pragma omp parallel num_threads(s.threads)
    {
        std::vector<T> work(2 * H);
#pragma omp for
        for (int64_t b = 0; b < s.batch; ++b)
            forward_row(zx + b * N, zh + b * N, c_before + b * H, a + b * N, c + b * H, h + b * H, distance_forget + b,
                        distance_input + b, s, work.data());
    }
}

template <class T, class Z>
void backward(const T* a, const T* c_before, const T* c, const Z* d_output, const Z* dh_next, T* dc,
              const T* d_distance_forget, const T* d_distance_input, Z* dz, const Shape& s) {
    const int64_t N = s.rows(), H = s.hidden();
#pragma omp parallel num_threads(s.threads)
    {
        std::vector<T> work(4 * H);
#pragma omp for
        for (int64_t b = 0; b < s.batch; ++b)
            backward_row(a + b * N, c_before + b * H, c + b * H, d_output + b * H, dh_next + b * H, dc + b * H,
                         d_distance_forget[b], d_distance_input[b], dz + b * N, s, work.data());
    }
}

}  // namespace

#define EXPORT(NAME, T, Z)                                                                                             \
    extern "C" void forward_##NAME(const Z* zx, const Z* zh, const T* c_before, T* a, T* c, Z* h, T* distance_forget,  \
                                   T* distance_input, int64_t batch, int64_t levels, int64_t chunk, int64_t reverse,   \
                                   int64_t threads) {                                                                  \
        forward<T, Z>(zx, zh, c_before, a, c, h, distance_forget, distance_input,                                      \
                      Shape{batch, levels, chunk, reverse, threads});                                                  \
    }                                                                                                                  \
    extern "C" void backward_##NAME(const T* a, const T* c_before, const T* c, const Z* d_output, const Z* dh_next,    \
                                    T* dc, const T* d_distance_forget, const T* d_distance_input, Z* dz,               \
                                    int64_t batch, int64_t levels, int64_t chunk, int64_t reverse, int64_t threads) {  \
        backward<T, Z>(a, c_before, c, d_output, dh_next, dc, d_distance_forget, d_distance_input, dz,                 \
                       Shape{batch, levels, chunk, reverse, threads});                                                 \
    }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, float, bfloat16)
