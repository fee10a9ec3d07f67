/* Products with the sparse part S (m, n) of the output gradient and its transpose (common.h, parts.h). Twins: the methods
 * of TargetPlan. */
#include "parts.h"

enum { COLUMNS = 256, SOME = 32 }; /* columns at a time; sums of a task */

static inline float weight_of(const Terms *t, Int k) { return t->weights[t->order ? t->order[k] : k]; }

static inline void set_scaled(float *restrict out, const float *restrict row, float weight, Int count) {
#pragma omp simd
    for (Int j = 0; j < count; j++) out[j] = weight * row[j];
}

/* out (count,) = Σ of the terms [begin, end), columns from `first`; four at a time, so that `out` is met less often. */
static void add_terms(const Terms *t, Int begin, Int end, Int first, Int count, float *restrict out) {
    Int k = begin + 1;
    if (begin == end) {
        memset(out, 0, sizeof(float) * count);
        return;
    }
    set_scaled(out, t->rows + t->which[begin] * t->d + first, weight_of(t, begin), count);
    for (; k + 4 <= end; k += 4) {
        for (Int next = k + 4; next < k + 8 && next < end; next++) fetch(t->rows + t->which[next] * t->d + first, count);
        const float *a = t->rows + t->which[k] * t->d + first, *b = t->rows + t->which[k + 1] * t->d + first;
        const float *c = t->rows + t->which[k + 2] * t->d + first, *e = t->rows + t->which[k + 3] * t->d + first;
        float wa = weight_of(t, k), wb = weight_of(t, k + 1), wc = weight_of(t, k + 2), we = weight_of(t, k + 3);
#pragma omp simd
        for (Int j = 0; j < count; j++) out[j] += (wa * a[j] + wb * b[j]) + (wc * c[j] + we * e[j]);
    }
    for (; k < end; k++) add_scaled(out, t->rows + t->which[k] * t->d + first, weight_of(t, k), count);
}

/* The same, piece by piece: the rounding of thousands of equal terms, each added to all before, would not cancel, and is
 * magnified by U. */
static void add_pieces(const Terms *t, Int begin, Int end, Int first, Int count, float *out) {
    float piece[COLUMNS];
    add_terms(t, begin, end < begin + PIECE ? end : begin + PIECE, first, count, out);
    for (Int k = begin + PIECE; k < end; k += PIECE) {
        add_terms(t, k, end < k + PIECE ? end : k + PIECE, first, count, piece);
        add_scaled(out, piece, 1.0f, count);
    }
}

void widehead_sum(const Terms *t, Int i, const float *onto, float *out, int streams) {
    float buffer[COLUMNS];
    for (Int first = 0; first < t->d; first += COLUMNS) {
        Int count = t->d - first < COLUMNS ? t->d - first : COLUMNS;
        /* The sum first: a thousand small terms, each added to a large row, would be rounded a thousand times. */
        float *to = streams ? buffer : out + first;
        add_pieces(t, t->offsets[i], t->offsets[i + 1], first, count, to);
        if (onto) add_scaled(to, onto + i * t->d + first, 1.0f, count);
        if (streams) stream(out + first, buffer, count);
    }
}

double widehead_add_sums(const Terms *t, Int n, const float *onto, float *out, Int stride) {
    double sum = 0.0;
#pragma omp for schedule(dynamic, SOME) nowait
    for (Int i = 0; i < n; i++) {
        widehead_sum(t, i, onto, out + i * stride, 0);
        if (onto) sum += total(out + i * stride, t->d);
    }
    return sum;
}

/* Whether class i has one term, whose square, and a sum of many such, float32 holds. */
static inline int is_single(const Terms *t, Int i) {
    if (t->offsets[i + 1] - t->offsets[i] != 1) return 0;
    float size = fabsf(weight_of(t, t->offsets[i]));
    return size == 0.0f || (size > 1e-15f && size < 1e15f);
}

/* Columns of out (m, d) = the part of SSᵀ·rows that such classes have, which is diagonal: each example's row once, not
 * once for each of them. The diagonal stands in the first of the columns meanwhile. */
static void gram_of_single_terms(const Terms *t, Range own, Int m, Int n, float *out) {
    for (Int b = 0; b < m; b++) out[b * t->d + own.begin] = 0.0f;
    for (Int i = 0; i < n; i++) {
        Int k = t->offsets[i];
        if (is_single(t, i)) out[t->which[k] * t->d + own.begin] += weight_of(t, k) * weight_of(t, k);
    }
    for (Int b = 0; b < m; b++) {
        float *row = out + b * t->d + own.begin;
        set_scaled(row, t->rows + b * t->d + own.begin, row[0], own.end - own.begin);
    }
}

void widehead_gram_columns(const Terms *t, Range own, Int m, Int n, float *out) {
    Int d = t->d;
    float sum[COLUMNS];
    if (own.begin == own.end) return;
    gram_of_single_terms(t, own, m, n, out);
    for (Int first = own.begin; first < own.end; first += COLUMNS) {
        Int count = own.end - first < COLUMNS ? own.end - first : COLUMNS;
        for (Int i = 0; i < n; i++) {
            if (is_single(t, i)) continue;
            add_pieces(t, t->offsets[i], t->offsets[i + 1], first, count, sum);
            for (Int k = t->offsets[i]; k < t->offsets[i + 1]; k++)
                add_scaled(out + t->which[k] * d + first, sum, weight_of(t, k), count);
        }
    }
}

/* out (n, d) of widehead_add_sums. Twins: TargetPlan.times and transposed_times. */
void widehead_sums(int threads, Int n, Int d, const Int *offsets, const Int *which, const Int *order, const float
                   *weights, const float *rows, const float *onto, float *out) {
    Terms terms = {offsets, which, order, weights, rows, d};
#pragma omp parallel num_threads(threads)
    widehead_add_sums(&terms, n, onto, out, d);
}

/* out (m, d) = SSᵀ·right; each thread has some columns. Twin: TargetPlan.gram_times. */
void widehead_gram(int threads, Int m, Int n, Int d, const Int *class_offsets, const Int *examples_by_class, const Int
                   *by_class, const float *sparse, const float *right, float *out) {
    Terms terms = {class_offsets, examples_by_class, by_class, sparse, right, d};
#pragma omp parallel num_threads(threads)
    widehead_gram_columns(&terms, mine(d, LINE), m, n, out);
}
