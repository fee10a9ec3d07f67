/* Products with the sparse part S (m, n) of the output gradient and its transpose (common.h, parts.h). Twins: the methods
 * of TargetPlan. */
#include "parts.h"

enum { COLUMNS = 256, SOME = 32 }; /* columns at a time; sums of a task */

static inline float weight_of(const Terms *t, Int k) { return t->weights[t->order ? t->order[k] : k]; }

/* out (count,) = Σ of the terms [begin, end), columns from `first`; four at a time, so that `out` is met less often. */
static void add_terms(const Terms *t, Int begin, Int end, Int first, Int count, float *restrict out) {
    Int k = begin;
    memset(out, 0, sizeof(float) * count);
    for (; k + 4 <= end; k += 4) {
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

double widehead_add_sums(const Terms *t, Int n, const float *onto, float *out, Int stride) {
    Int d = t->d;
    double sum = 0.0;
#pragma omp for schedule(dynamic, SOME) nowait
    for (Int i = 0; i < n; i++) {
        for (Int first = 0; first < d; first += COLUMNS) {
            Int count = d - first < COLUMNS ? d - first : COLUMNS;
            float *to = out + i * stride + first;
            /* The sum first: a thousand small terms, each added to a large row, would be rounded a thousand times. */
            add_pieces(t, t->offsets[i], t->offsets[i + 1], first, count, to);
            if (!onto) continue;
            add_scaled(to, onto + i * d + first, 1.0f, count);
            sum += total(to, count);
        }
    }
    return sum;
}

void widehead_gram_columns(const Terms *t, Range own, Int m, Int n, float *out) {
    Int d = t->d;
    float sum[COLUMNS];
    for (Int first = own.begin; first < own.end; first += COLUMNS) {
        Int count = own.end - first < COLUMNS ? own.end - first : COLUMNS;
        for (Int b = 0; b < m; b++) memset(out + b * d + first, 0, sizeof(float) * count);
        for (Int i = 0; i < n; i++) {
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
