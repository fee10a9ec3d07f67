/* What the compiled operations share. Each has a twin made of torch's operations in the Python of this room, which says
 * what it computes; tests hold the two together. Letters as there: m examples, d width, H (m, d) hidden,
 * R preconditioner, Hr = HR, T = ΛO + σ1ᵀ + S, U factor of the segment, ω shift, w̄ = Wᵀ1, Q = WᵀW; n distinct target
 * classes, nnz targets. `small` is the small
 * state: rows U (d), ω, w̄, Q (d), U⁻ᵀ (d). All matrices are dense, row by row.
 *
 * Products are those of the BLAS that torch has, each called by one thread for its own part of the result: matrices of
 * no more than a few hundred rows leave little for a BLAS to divide well. Barriers stand between stages that read
 * what others wrote.
 */
#ifndef WIDEHEAD_COMMON_H
#define WIDEHEAD_COMMON_H

#include <math.h>
#ifdef __AVX__
#include <immintrin.h>
#endif
#include <omp.h>
#include <string.h>

#include "interface.h"

typedef void Gemm(const char *, const char *, const int *, const int *, const int *, const float *, const float *,
                  const int *, const float *, const int *, const float *, float *, const int *);

/* numbers in a cache line; rows of a product that are worth a thread; terms of a class that are added one by one;
 * rows that are asked for before they are read; numbers that no cache is left with when they are wanted again */
enum { LINE = 16, LEAST_ROWS = 24, PIECE = 64, AHEAD = 4, LARGE = 1 << 22 };

extern Gemm *widehead_sgemm; /* given when the library is loaded */

/* C (m, n) = alpha·op(A)·op(B) + beta·C, where op(A) is (m, k), op(B) is (k, n), and `at`, `bt` transpose. */
static inline void product(int at, int bt, Int m, Int n, Int k, float alpha, const float *a, Int lda, const float *b,
                           Int ldb, float beta, float *c, Int ldc) {
    if (m <= 0 || n <= 0) return;
    int im = (int)m, in = (int)n, ik = (int)k, ia = (int)lda, ib = (int)ldb, ic = (int)ldc;
    widehead_sgemm(bt ? "T" : "N", at ? "T" : "N", &in, &im, &ik, &alpha, b, &ib, a, &ia, &beta, c, &ic);
}

typedef struct { Int begin, end; } Range;
typedef struct { Range rows, columns; } Tile;

/* Whether all of ids (n,) are rows of a table. What comes from outside is checked here, whoever checked it before. */
static inline int within(const Int *ids, Int n, Int num_rows) {
    int inside = 1;
    for (Int i = 0; i < n; i++) inside &= ids[i] >= 0 && ids[i] < num_rows;
    return inside;
}

static inline Range part(Int count, Int index, Int parts, Int align) {
    Int blocks = (count + align - 1) / align;
    Range r = {blocks * index / parts * align, blocks * (index + 1) / parts * align};
    if (r.begin > count) r.begin = count;
    if (r.end > count) r.end = count;
    return r;
}

/* A thread's part of a matrix: some rows if there are enough for all threads, otherwise fewer columns too. */
static inline Tile tile(Int rows, Int columns) {
    int t = omp_get_thread_num(), threads = omp_get_num_threads(), down = threads;
    while (down > 1 && (threads % down != 0 || rows < (Int)LEAST_ROWS * down)) down--;
    int across = threads / down;
    return (Tile){part(rows, t / across, down, 1), part(columns, t % across, across, LINE)};
}

static inline Range mine(Int count, Int align) {
    return part(count, omp_get_thread_num(), omp_get_num_threads(), align);
}

/* Asks for a row that is going to be read. */
static inline void fetch(const float *row, Int count) {
    for (Int j = 0; j < count; j += LINE) __builtin_prefetch(row + j);
}

/* to ← from past the caches, where they are aligned for it: what is written is not read from memory first. `drain` follows
 * before others read it. */
static inline void stream(float *to, const float *from, Int count) {
    Int j = 0;
#ifdef __AVX__
    if ((uintptr_t)to % sizeof(__m256) == 0)
        for (; j + 8 <= count; j += 8) _mm256_stream_ps(to + j, _mm256_loadu_ps(from + j));
#endif
    memcpy(to + j, from + j, sizeof(float) * (count - j));
}

static inline void drain(void) {
#ifdef __AVX__
    _mm_sfence();
#endif
}

static inline float dot(const float *a, const float *b, Int count) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Int j = 0; j < count; j++) sum += a[j] * b[j];
    return sum;
}

static inline float total(const float *a, Int count) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Int j = 0; j < count; j++) sum += a[j];
    return sum;
}

static inline void add_scaled(float *restrict out, const float *restrict row, float weight, Int count) {
#pragma omp simd
    for (Int j = 0; j < count; j++) out[j] += weight * row[j];
}

#endif
